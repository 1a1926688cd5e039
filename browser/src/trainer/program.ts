/** What a host needs of a program file (gridsched/train/program.py) and of a version (gridsched/train/version.py); graphs stay unread: plans come made. */

import { TrainerError } from "./errors.ts";
import { list, parseJson, record, text, type Json } from "./json.ts";
import { alike, described, dtypeOf, readTensors, shapeOf, type Tensor, type Tensors, type TensorSpec } from "./tensors.ts";

const FORMAT = 1;
const ROLES = ["parameter", "frozen", "buffer", "constant"] as const;
const OUTER = "outer/";

export type Role = (typeof ROLES)[number];

/** A tensor by the name it has in the owner's `module.state_dict()`; `parameter`s are trained, `constant`s belong to no version. */
export interface ModelTensor extends TensorSpec {
    readonly role: Role;
}

/** The program's tensors in stored order, and what travels with it. Tied weights have one name here, the one they are stored under. */
export interface Program {
    readonly tensors: ReadonlyMap<string, ModelTensor>;
    readonly constants: Tensors;
}

/** Read a program file; TrainerError for everything else. */
export function readProgram(data: Uint8Array): Program {
    const { tensors: held, metadata } = readTensors(data);
    const keys = ["format", "fields", "tensors", "aliases", "target", "train", "evaluate"] as const;
    const found = record("a program", parseJson(metadata.get("gridsched.program") ?? "null"), keys);
    if (found.format !== FORMAT) {
        throw new TrainerError(`program format ${String(found.format)} is not known here (this is ${FORMAT}); reload the page`);
    }
    const tensors = new Map(list("the tensors of a program", found.tensors).map(readTensor));
    const constants = new Map<string, Tensor>();
    for (const [name, spec] of tensors) {
        const tensor = held.get(name);
        if (tensor !== undefined && !alike(tensor, spec)) {
            throw new TrainerError(`tensor ${name} of the program should be ${described(spec)}, got ${described(tensor)}`);
        }
        if (spec.role === "constant") {
            if (tensor === undefined) {
                throw new TrainerError(`the constant ${name} is missing in the program file; fetch it again`);
            }
            constants.set(name, tensor);
        }
    }
    return { tensors, constants };
}

function readTensor(value: Json): [string, ModelTensor] {
    const item = record("a tensor of a program", value, ["name", "dtype", "shape", "role", "layout"]);
    const name = text("the name of a tensor", item.name);
    const role = ROLES.find((known) => known === item.role);
    if (role === undefined) {
        throw new TrainerError(`tensor ${name} has the unknown role ${String(item.role)}`);
    }
    return [name, { dtype: dtypeOf(`tensor ${name}`, item.dtype), shape: shapeOf(`tensor ${name}`, item.shape), role }];
}

/** What a unit starts from: the model's tensors, and which of them are running statistics. */
export interface Version {
    readonly tensors: Tensors;
    readonly buffers: ReadonlySet<string>;
}

/** Read a version; TrainerError for any other file. */
export function readVersion(data: Uint8Array): Version {
    const { tensors, metadata } = readTensors(data);
    const about = record("a version's gridsched.version", parseJson(metadata.get("gridsched.version") ?? "null"), ["buffers"]);
    const buffers = list("the buffers of a version", about.buffers).map((name) => text("a buffer's name", name));
    const missing = buffers.find((name) => !tensors.has(name));
    if (missing !== undefined) {
        throw new TrainerError(`buffer ${missing} of the version is missing in it`);
    }
    const own = [...tensors].filter(([name]) => !name.startsWith(OUTER)); // momentum that versions of release 0.1 brought along
    return { tensors: new Map(own), buffers: new Set(buffers) };
}
