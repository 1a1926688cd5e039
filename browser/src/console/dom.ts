// Elements made by script. Text is only ever text: nothing that comes from the server is parsed as HTML.

export type Child = Node | string | null | undefined | false | readonly Child[];

interface Props {
    readonly class?: string;
    readonly attrs?: Readonly<Record<string, string | number | boolean | undefined>>;
    readonly on?: Readonly<Record<string, (event: Event) => void>>;
}

/** An element with its class, attributes, listeners and children. An attribute that is false or undefined is left out. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props: Props = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
    const element = document.createElement(tag);
    if (props.class !== undefined) element.className = props.class;
    for (const [name, value] of Object.entries(props.attrs ?? {})) {
        if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
    }
    for (const [name, listener] of Object.entries(props.on ?? {})) element.addEventListener(name, listener);
    fill(element, ...children);
    return element;
}

/** Put `children` in the place of whatever is in `element`. */
export function fill(element: Element, ...children: Child[]): void {
    element.replaceChildren(...flat(children));
}

function* flat(children: readonly Child[]): Generator<Node | string> {
    for (const child of children) {
        if (Array.isArray(child)) yield* flat(child as readonly Child[]);
        else if (typeof child === "string" || child instanceof Node) yield child;
    }
}

/** Change a text only where it differs: what has not changed is neither painted nor read out again. */
export function write(element: Element, text: string): void {
    if (element.textContent !== text) element.textContent = text;
}

/** Keep the children of `parent` in step with `rows`: one element for each key, made once, updated in place, in this order. */
export function keep<R, E extends Element>(parent: Element, kept: Map<string, E>, rows: readonly R[], key: (row: R) => string, make: (row: R) => E, update: (element: E, row: R) => void): void {
    const wanted = new Set(rows.map(key));
    for (const [name, element] of kept) {
        if (!wanted.has(name)) {
            element.remove();
            kept.delete(name);
        }
    }
    rows.forEach((row, place) => {
        let element = kept.get(key(row));
        if (element === undefined) {
            element = make(row);
            kept.set(key(row), element);
        }
        update(element, row);
        if (parent.children[place] !== element) parent.insertBefore(element, parent.children[place] ?? null);
    });
}

/** A table that becomes a list of cards on a narrow screen: each cell carries its column's name. */
export function table(caption: string, heads: readonly string[], rows: readonly (readonly Child[])[], numeric: readonly number[] = []): HTMLTableElement {
    const side = (column: number): string | undefined => (numeric.includes(column) ? "number" : undefined);
    const cell = (tag: "td" | "th", column: number, child: Child, attrs: Record<string, string>): HTMLElement => {
        const name = side(column);
        return h(tag, name === undefined ? { attrs } : { class: name, attrs }, child);
    };
    return h(
        "table",
        { class: "cards" },
        h("caption", { class: "quiet" }, caption),
        h("thead", {}, h("tr", {}, heads.map((head, column) => cell("th", column, head, { scope: "col" })))),
        h("tbody", {}, rows.map((row) => h("tr", {}, row.map((child, column) => cell(column === 0 ? "th" : "td", column, child, column === 0 ? { scope: "row" } : { "data-head": heads[column] ?? "" }))))),
    );
}
