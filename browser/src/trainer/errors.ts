/** What the trainer cannot do: the message names the thing and the remedy, in words a page can show and a server can log. */
export class TrainerError extends Error {
    override readonly name = "TrainerError";
}
