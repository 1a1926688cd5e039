// Figures as people read them, in the visitor's language and the zone's time.

import type { Language } from "../shared/i18n.ts";

export class Format {
    constructor(
        readonly language: Language,
        readonly timezone: string,
    ) {}

    number(value: number, digits = 0): string {
        return value.toLocaleString(this.language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
    }

    percent(share: number, digits = 0): string {
        return share.toLocaleString(this.language, { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits });
    }

    /** Watts with the prefix that keeps them short. */
    watts(watts: number): string {
        const size = Math.abs(watts);
        if (size >= 9.995e8) return `${this.number(watts / 1e9, 2)} GW`;
        if (size >= 9.995e5) return `${this.number(watts / 1e6, 2)} MW`;
        if (size >= 9995) return `${this.number(watts / 1e3, 1)} kW`;
        return `${this.number(watts, size > 0 && size < 10 ? 1 : 0)} W`;
    }

    /** Watt-hours; less than a tenth of one with the digits it takes to see it. */
    energy(joules: number): string {
        const hours = joules / 3600;
        if (hours >= 999.5) return `${this.number(hours / 1000, 2)} kWh`;
        return `${this.number(hours, hours >= 100 ? 0 : hours > 0 && hours < 0.1 ? 4 : 2)} Wh`;
    }

    /** Millionths of a euro; less than a cent with the digits it takes to see it. */
    money(micro: number): string {
        const euros = Math.round(micro) / 1e6;
        const digits = euros !== 0 && Math.abs(euros) < 0.1 ? (Math.abs(euros) < 0.001 ? 6 : 4) : 2;
        return euros.toLocaleString(this.language, { style: "currency", currency: "EUR", minimumFractionDigits: digits, maximumFractionDigits: digits });
    }

    /** A signal's value in its unit. */
    value(value: number, unit: string): string {
        if (unit === "W") return this.watts(value);
        if (unit === "share") return this.percent(value);
        return `${this.number(value, Math.abs(value) < 100 ? 1 : 0)} ${unit.replace("EUR", "€")}`;
    }

    /** The time of day, with the day where it is not that of `beside`. */
    time(moment: string | number, beside?: string | number): string {
        const at = new Date(moment);
        const clock = at.toLocaleTimeString(this.language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: this.timezone });
        return beside !== undefined && this.day(at.getTime()) === this.day(beside) ? clock : `${this.day(at.getTime())} ${clock}`;
    }

    day(moment: string | number, long = false): string {
        const how: Intl.DateTimeFormatOptions = long ? { weekday: "long", day: "numeric", month: "long" } : { weekday: "short", day: "numeric", month: "short" };
        return new Date(moment).toLocaleDateString(this.language, { ...how, timeZone: this.timezone });
    }

    /** A day as short as an axis has room for. */
    date(moment: number): string {
        return new Date(moment).toLocaleDateString(this.language, { weekday: "short", day: "numeric", timeZone: this.timezone });
    }

    stamp(moment: string): string {
        return new Date(moment).toLocaleString(this.language, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23", timeZone: this.timezone });
    }

    /** How long ago, by the daemon's clock. */
    ago(moment: string, now: string, soon: string): string {
        const seconds = (Date.parse(now) - Date.parse(moment)) / 1000;
        if (seconds < 10) return soon;
        const told = new Intl.RelativeTimeFormat(this.language, { style: "short", numeric: "always" });
        if (seconds < 90) return told.format(-Math.round(seconds), "second");
        if (seconds < 5400) return told.format(-Math.round(seconds / 60), "minute");
        return seconds < 172800 ? told.format(-Math.round(seconds / 3600), "hour") : told.format(-Math.round(seconds / 86400), "day");
    }
}
