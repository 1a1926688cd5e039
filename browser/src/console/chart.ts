// uPlot as the console uses it: stepped lines over a zone's own time, colours from the style sheet, and nothing that hides a value.

import uPlot from "uplot";
import type { Format } from "./format.ts";

/** Moments in seconds, then one list of values for each line; null is unknown and leaves a gap. */
export type Lines = readonly [readonly number[], ...(readonly (readonly (number | null)[])[])];

export interface Line {
    readonly label: string;
    readonly color: string;
    readonly dash?: readonly number[];
    readonly fill?: string;
    readonly width?: number;
    readonly stepped?: boolean;
    readonly value: (value: number) => string;
}

interface Options {
    readonly lines: readonly Line[];
    readonly data: Lines;
    readonly height: number;
    readonly axis: (value: number) => string;
    readonly format?: Format;
    readonly range?: readonly [number, number];
    /** The least that the scale of values spans: a flat line is not blown up to fill the chart. */
    readonly span?: readonly [number, number];
    readonly now?: number;
    readonly hideTimes?: boolean;
    readonly sync?: string;
    readonly whole?: boolean;
}

/** Beside what is drawn over time, in px: 4rem for the axis, so that the strip of decisions aligns with it (`.strip`). */
const AXIS_W = 64;
const RIGHT_W = 20;

/** A colour of the style sheet. */
export function color(name: string): string {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** A chart that fills the width of `place`. It is drawn anew by `draw`, so it takes on another language or colour scheme by that. */
export class Chart {
    private plot: uPlot | undefined;
    private readonly watch: ResizeObserver;

    constructor(private readonly place: HTMLElement) {
        this.watch = new ResizeObserver(() => this.plot?.setSize({ width: this.width(), height: this.plot.height }));
        this.watch.observe(place);
    }

    draw(options: Options): void {
        this.plot?.destroy();
        this.plot = new uPlot(made(options, this.width()), options.data as unknown as uPlot.AlignedData, this.place);
    }

    end(): void {
        this.watch.disconnect();
        this.plot?.destroy();
        this.plot = undefined;
    }

    private width(): number {
        return Math.max(this.place.clientWidth, 160);
    }
}

function made(options: Options, width: number): uPlot.Options {
    const { format } = options;
    const soft = color("soft");
    const grid = { stroke: color("line"), width: 1 };
    const scale = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
    const font = `${12 * scale}px ${getComputedStyle(document.body).fontFamily}`;
    const times: uPlot.Axis = {
        stroke: soft,
        font,
        grid,
        ticks: { show: false },
        space: 64,
        size: options.hideTimes === true ? 6 : 30,
        values: (_, splits) => (options.hideTimes === true ? splits.map(() => "") : labels(splits, format)),
        ...(options.whole === true ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] } : {}),
    };
    return {
        width,
        height: Math.round(options.height * scale),
        ...(format === undefined ? {} : { tzDate: (stamp: number) => uPlot.tzDate(new Date(stamp * 1000), format.timezone) }),
        padding: [8, RIGHT_W, 0, 0],
        legend: { show: true, live: true },
        cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false }, ...(options.sync === undefined ? {} : { sync: { key: options.sync } }) },
        scales: {
            x: { time: format !== undefined, ...(options.range === undefined ? {} : { range: [...options.range] }) },
            y: { range: (_, low, high) => spanned(low, high, options.span) },
        },
        axes: [times, { stroke: soft, font, grid, ticks: { show: false }, size: AXIS_W * scale, space: 28 * scale, values: (_, splits) => splits.map(options.axis) }],
        series: [
            { label: "", value: (_, stamp) => (stamp == null ? "" : format === undefined ? String(stamp) : format.time(stamp * 1000)), class: "when" },
            ...options.lines.map((line) => drawn(line)),
        ],
        hooks: { drawClear: [(plot) => shadeFuture(plot, options.now)], drawAxes: [(plot) => markNow(plot, options.now)] },
    };
}

function drawn(line: Line): uPlot.Series {
    const stepped = line.stepped === false ? undefined : uPlot.paths.stepped?.({ align: 1 });
    return {
        label: line.label,
        stroke: line.color,
        width: line.width ?? 2,
        points: { show: line.stepped === false },
        spanGaps: false,
        value: (_, value) => (value == null ? "–" : line.value(value)),
        ...(line.dash === undefined ? {} : { dash: [...line.dash] }),
        ...(line.fill === undefined ? {} : { fill: line.fill }),
        ...(stepped === undefined ? {} : { paths: stepped }),
    };
}

function spanned(low: number | null, high: number | null, span: readonly [number, number] | undefined): [number, number] {
    const lowest = Math.min(low ?? 0, span?.[0] ?? Infinity);
    const highest = Math.max(high ?? 1, span?.[1] ?? -Infinity);
    const room = (highest - lowest || 1) * 0.08;
    return [lowest < 0 || span === undefined ? lowest - room : lowest, highest + room];
}

/** Hours as clock times; a new day by its name. */
function labels(splits: readonly number[], format: Format | undefined): string[] {
    if (format === undefined) return splits.map((value) => (Number.isInteger(value) ? String(value) : ""));
    let before = "";
    return splits.map((stamp) => {
        const day = format.date(stamp * 1000);
        const told = before !== "" && day !== before ? day : format.time(stamp * 1000, stamp * 1000);
        before = day;
        return told;
    });
}

function shadeFuture(plot: uPlot, now: number | undefined): void {
    if (now === undefined) return;
    const from = Math.max(plot.valToPos(now, "x", true), plot.bbox.left);
    plot.ctx.fillStyle = color("future");
    plot.ctx.fillRect(from, plot.bbox.top, plot.bbox.left + plot.bbox.width - from, plot.bbox.height);
}

function markNow(plot: uPlot, now: number | undefined): void {
    if (now === undefined) return;
    const at = Math.round(plot.valToPos(now, "x", true));
    plot.ctx.fillStyle = color("ink");
    plot.ctx.fillRect(at, plot.bbox.top, Math.max(1, Math.round(devicePixelRatio)), plot.bbox.height);
}

/** Several lines, each with moments of its own, on the moments of all of them; where a line says nothing new its last value holds. */
export function aligned(lines: readonly (readonly (readonly [number, number | null])[])[]): Lines {
    const moments = [...new Set(lines.flatMap((line) => line.map(([moment]) => moment)))].sort((a, b) => a - b);
    const values = lines.map((line) => {
        let next = 0;
        let held: number | null = null;
        return moments.map((moment) => {
            while (next < line.length && (line[next]?.[0] ?? Infinity) <= moment) {
                held = line[next]?.[1] ?? null;
                next += 1;
            }
            return held;
        });
    });
    return [moments, ...values];
}

/** Call `draw` again when the device turns dark or light. */
export function onScheme(draw: () => void): () => void {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    return () => dark.removeEventListener("change", draw);
}
