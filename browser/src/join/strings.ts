// Every sentence of the page, in both languages. The reasons are the daemon's own words (core/fleet.py `NodeReason`, core/lease.py
// `LeaseReason`, core/policy.py `Reason`) and those of decide.ts, said so that nobody needs to know them.

const en = {
    title: "Take part · gridsched",
    join_title: "Let surplus electricity learn",
    join_lead:
        "When wind and sun make more than the grid needs, this device can help to train a shared model – and you are paid for it. You decide when, and how hard.",
    code: "Invitation code",
    code_hint: "From your operator, on paper or as a QR code. It works once.",
    device: "This device",
    device_phone: "Phone",
    device_tablet: "Tablet",
    device_laptop: "Laptop",
    device_desktop: "Desktop",
    device_console: "Console or TV",
    power: "Draws at full work",
    power_hint: "An estimate for the kind of device. Correct it if you know better: energy and reward are reckoned from it.",
    name: "Name",
    memory: "Memory it may use",
    join_button: "Join",
    joining: "Joining …",
    promise_off: "Joining starts nothing. You switch it on yourself.",
    promise_data: "Only trained numbers and energy readings leave this device – nothing of yours.",
    promise_stop: "Stop at any moment; no work is lost.",
    bad_name: "The name may have lower-case letters, digits, - and _.",
    bad_power: "Give a power between 0.5 and 2000 watts.",
    no_code: "Enter the code of your invitation.",
    bad_code: "This code is not known here, has been used or has run out. Compare it once more, or ask your operator for a new one.",
    no_room:
        "This browser stores nothing at the moment ({detail}) and would not know you the next time. Make room, or leave the private window, and press again: the code has not been used.",
    name_taken: "A device of this name has joined already. Choose another name.",
    node_title: "Your device in the grid",
    take_part: "Take part",
    on: "On",
    off: "Off",
    earned: "Earned",
    energy: "Energy, estimated",
    units_done: "Units accepted",
    draw: "Draw now, estimated",
    offer_title: "On offer now",
    pays: "Pays",
    pays_value: "{kwh} per kWh, {unit} per unit of work",
    trains: "Trains",
    trains_none: "Nothing at the moment",
    trains_value: "{name}, epoch {epoch} of {epochs}",
    trains_accuracy: "{percent} right so far",
    trains_data: "data: {dataset}",
    zone: "Your grid",
    leaves_title: "What leaves this device?",
    leaves_text:
        "The changes in the model's numbers that your device worked out, how many steps it took, an estimate of the energy, and whether it is charging or busy. No files, no contacts, no location, nothing you type. The samples it learns from come from the operator.",
    limits_title: "Your limits",
    how_long: "How long",
    until_off: "Until I stop it",
    one_hour: "For 1 hour",
    two_hours: "For 2 hours",
    four_hours: "For 4 hours",
    eight_hours: "For 8 hours",
    how_hard: "How hard",
    only_charging: "Only while charging",
    in_background: "Go on when this page is not in front",
    despite_saver: "Download although the data saver is on",
    statement_title: "Statement",
    statement_sum: "{balance} earned for {energy}; up to {pending} more set aside for work under way",
    statement_lines: "All entries",
    statement_save: "Save as a file",
    statement_none: "No entries yet",
    when: "When",
    what: "What",
    amount: "Amount",
    leave_title: "Leave",
    leave_text:
        "Gives back what is being worked on and erases everything this browser has stored for gridsched. What you have earned stays yours; to come back you need a new code.",
    leave_button: "Leave and erase",
    leaving: "Leaving …",
    saver_title: "Your data saver is on",
    saver_text: "To train, this page downloads a model and samples: a few megabytes, sometimes more. Go on?",
    saver_yes: "Download",
    saver_no: "Not now",
    footer: "Energy is estimated from the power you gave, not measured.",
    whoami: "{node} in {zone}",
    wait_title: "gridsched",
    elsewhere: "It is already running in another tab or window of this browser. This one takes over as soon as that one is closed.",
    revoked: "The operator has ended this device's membership. What you have earned stays yours. To come back, ask for a new code.",
    duplicate: "Another browser or program runs under this device's name. Close one of the two, then load this page again.",
    outdated: "This page is older than the server, and reloading has not helped. Close all its tabs and open it again.",
    broken: "This browser cannot train: {detail}",
    start_over: "Use a new code",
    reload: "Load again",
    offline: "No connection to the server. Work rests safely here; it goes on by itself.",
    stopped: "The browser had put this page to sleep for {time}. Nothing was lost.",
    throttled: "Your device is slowing down, perhaps from heat: resting more.",
    storage: "The browser stores nothing more: {detail}",
    fetching: "Downloading {done} of {total}",
    step: "Step {step} of {steps}",
    left: "about {time} to go",
    consent_left: "on for another {time}",
    handing: "Giving the unit back, so that others can go on from here.",
    sending: "Sending the finished unit.",
    w_surplus: "There is surplus electricity now",
    w_none: "No surplus electricity right now",
    w_unknown: "Looking at the grid …",
    w_alarm: "The grid needs everyone to rest",
    w_paused: "The operator has paused everything",
    r_off: "Switched off. Nothing runs.",
    r_working: "Training. Thank you!",
    r_starting: "Starting …",
    r_available: "Ready. Waiting for work.",
    r_no_surplus: "Waiting for surplus electricity.",
    r_no_work: "Ready, but there is nothing to train at the moment.",
    r_paused: "Paused.",
    r_alarm: "Paused: the grid needs its power elsewhere.",
    r_stale_signal: "Paused: the state of the grid is not known at the moment.",
    r_target_lowered: "Paused: less surplus than before, others go on.",
    r_not_scheduled: "Paused: a better hour for this work comes later.",
    r_opted_out: "Switched off. Nothing runs.",
    r_consent_ended: "The time you set is over.",
    r_reward_too_low: "Waiting: the reward is below what you asked for.",
    r_device_busy: "Paused while you use the device.",
    r_device_hot: "Paused: the device is too warm.",
    r_on_battery: "Paused: plug in the charger to go on.",
    r_disk_full: "Paused: the browser has no room to store work.",
    r_hidden: "Paused while this page is not in front.",
    r_data_saver: "Paused: the data saver is on.",
    r_paused_by_operator: "Paused by the operator.",
    r_paused_too_long: "The pause was long, so others go on with this unit.",
    r_daemon_silent: "Paused: the server does not answer. Work is kept here.",
    r_start_delayed: "Starting in a moment …",
    r_held_out: "Not needed today: by lot, some devices rest so that the effect can be measured.",
    r_device: "Paused by one of your limits.",
    r_runtime: "Nothing here that this device can train; others can.",
    r_memory: "The work needs more memory than you offered.",
    r_quarantined: "Results from this device were found wrong; the operator has set it aside.",
    r_refused: "This unit could not be trained here; it goes to others.",
    k_post: "Reward",
    k_payout: "Paid out",
    k_reverse: "Correction",
};

export type Text = keyof typeof en;

const de: Record<Text, string> = {
    title: "Mitmachen · gridsched",
    join_title: "Überschussstrom zum Lernen bringen",
    join_lead:
        "Wenn Wind und Sonne mehr liefern, als das Netz braucht, kann dieses Gerät beim Training eines gemeinsamen Modells helfen – und Sie werden dafür bezahlt. Wann und wie stark, entscheiden Sie.",
    code: "Einladungscode",
    code_hint: "Von Ihrem Netzbetreiber, auf Papier oder als QR-Code. Er gilt einmal.",
    device: "Dieses Gerät",
    device_phone: "Telefon",
    device_tablet: "Tablet",
    device_laptop: "Laptop",
    device_desktop: "Desktop-PC",
    device_console: "Konsole oder Fernseher",
    power: "Verbraucht bei voller Arbeit",
    power_hint: "Ein Schätzwert für diese Geräteart. Bitte berichtigen, wenn Sie es besser wissen: Energie und Vergütung werden daraus berechnet.",
    name: "Name",
    memory: "Nutzbarer Speicher",
    join_button: "Beitreten",
    joining: "Beitritt läuft …",
    promise_off: "Mit dem Beitritt startet nichts. Eingeschaltet wird von Ihnen.",
    promise_data: "Nur trainierte Zahlen und Energiewerte verlassen dieses Gerät – nichts Persönliches.",
    promise_stop: "Jederzeit abschaltbar; keine Arbeit geht verloren.",
    bad_name: "Der Name darf Kleinbuchstaben, Ziffern, - und _ enthalten.",
    bad_power: "Bitte eine Leistung zwischen 0,5 und 2000 Watt angeben.",
    no_code: "Bitte den Code Ihrer Einladung eingeben.",
    bad_code: "Dieser Code ist hier nicht bekannt, schon benutzt oder abgelaufen. Bitte noch einmal vergleichen oder beim Betreiber einen neuen erfragen.",
    no_room:
        "Dieser Browser speichert im Moment nichts ({detail}) und würde Sie beim nächsten Mal nicht kennen. Bitte Platz schaffen oder das private Fenster verlassen und noch einmal drücken: Der Code ist noch nicht benutzt.",
    name_taken: "Ein Gerät dieses Namens ist schon dabei. Bitte einen anderen Namen wählen.",
    node_title: "Ihr Gerät im Netz",
    take_part: "Mitmachen",
    on: "An",
    off: "Aus",
    earned: "Verdient",
    energy: "Energie, geschätzt",
    units_done: "Einheiten angenommen",
    draw: "Leistung jetzt, geschätzt",
    offer_title: "Das Angebot jetzt",
    pays: "Vergütung",
    pays_value: "{kwh} je kWh, {unit} je Arbeitseinheit",
    trains: "Trainiert",
    trains_none: "Im Moment nichts",
    trains_value: "{name}, Epoche {epoch} von {epochs}",
    trains_accuracy: "bisher {percent} richtig",
    trains_data: "Daten: {dataset}",
    zone: "Ihr Netz",
    leaves_title: "Was verlässt dieses Gerät?",
    leaves_text:
        "Die Änderungen an den Zahlen des Modells, die Ihr Gerät berechnet hat, die Anzahl der Schritte, eine Schätzung der Energie und ob es lädt oder beschäftigt ist. Keine Dateien, keine Kontakte, kein Standort, nichts Eingetipptes. Die Beispiele, aus denen es lernt, kommen vom Betreiber.",
    limits_title: "Ihre Grenzen",
    how_long: "Wie lange",
    until_off: "Bis auf Weiteres",
    one_hour: "Für 1 Stunde",
    two_hours: "Für 2 Stunden",
    four_hours: "Für 4 Stunden",
    eight_hours: "Für 8 Stunden",
    how_hard: "Wie stark",
    only_charging: "Nur beim Laden",
    in_background: "Weiterarbeiten, wenn diese Seite nicht vorn ist",
    despite_saver: "Trotz Datensparmodus herunterladen",
    statement_title: "Abrechnung",
    statement_sum: "{balance} verdient für {energy}; bis zu {pending} mehr für laufende Arbeit zurückgelegt",
    statement_lines: "Alle Buchungen",
    statement_save: "Als Datei sichern",
    statement_none: "Noch keine Buchungen",
    when: "Wann",
    what: "Was",
    amount: "Betrag",
    leave_title: "Austreten",
    leave_text:
        "Gibt angefangene Arbeit zurück und löscht alles, was dieser Browser für gridsched gespeichert hat. Verdientes bleibt Ihnen; für die Rückkehr brauchen Sie einen neuen Code.",
    leave_button: "Austreten und löschen",
    leaving: "Austritt läuft …",
    saver_title: "Der Datensparmodus ist an",
    saver_text: "Zum Training lädt diese Seite ein Modell und Beispiele: einige Megabyte, manchmal mehr. Fortfahren?",
    saver_yes: "Herunterladen",
    saver_no: "Jetzt nicht",
    footer: "Die Energie ist aus Ihrer Leistungsangabe geschätzt, nicht gemessen.",
    whoami: "{node} in {zone}",
    wait_title: "gridsched",
    elsewhere: "Es läuft bereits in einem anderen Tab oder Fenster dieses Browsers. Diese Seite übernimmt, sobald jene geschlossen ist.",
    revoked: "Der Betreiber hat die Teilnahme dieses Geräts beendet. Verdientes bleibt Ihnen. Für die Rückkehr bitte einen neuen Code erfragen.",
    duplicate: "Ein anderer Browser oder ein Programm läuft unter dem Namen dieses Geräts. Bitte eines von beiden schließen und die Seite neu laden.",
    outdated: "Diese Seite ist älter als der Server, und Neuladen hat nicht geholfen. Bitte alle ihre Tabs schließen und sie neu öffnen.",
    broken: "Dieser Browser kann nicht trainieren: {detail}",
    start_over: "Neuen Code verwenden",
    reload: "Neu laden",
    offline: "Keine Verbindung zum Server. Die Arbeit ruht hier sicher und geht von selbst weiter.",
    stopped: "Der Browser hatte diese Seite {time} lang schlafen gelegt. Nichts ging verloren.",
    throttled: "Ihr Gerät wird langsamer, vielleicht durch Wärme: Es ruht nun mehr.",
    storage: "Der Browser speichert nichts mehr: {detail}",
    fetching: "{done} von {total} geladen",
    step: "Schritt {step} von {steps}",
    left: "noch etwa {time}",
    consent_left: "an für weitere {time}",
    handing: "Die Einheit wird zurückgegeben, damit andere hier weitermachen.",
    sending: "Die fertige Einheit wird gesendet.",
    w_surplus: "Jetzt gibt es Überschussstrom",
    w_none: "Gerade kein Überschussstrom",
    w_unknown: "Ein Blick ins Netz …",
    w_alarm: "Das Netz braucht jetzt Ruhe von allen",
    w_paused: "Der Betreiber hat alles angehalten",
    r_off: "Ausgeschaltet. Es läuft nichts.",
    r_working: "Training läuft. Danke!",
    r_starting: "Startet …",
    r_available: "Bereit. Wartet auf Arbeit.",
    r_no_surplus: "Wartet auf Überschussstrom.",
    r_no_work: "Bereit, aber im Moment gibt es nichts zu trainieren.",
    r_paused: "Pausiert.",
    r_alarm: "Pausiert: Das Netz braucht seine Leistung anderswo.",
    r_stale_signal: "Pausiert: Der Zustand des Netzes ist gerade nicht bekannt.",
    r_target_lowered: "Pausiert: weniger Überschuss als vorhin, andere machen weiter.",
    r_not_scheduled: "Pausiert: Für diese Arbeit kommt noch eine bessere Stunde.",
    r_opted_out: "Ausgeschaltet. Es läuft nichts.",
    r_consent_ended: "Die eingestellte Zeit ist um.",
    r_reward_too_low: "Wartet: Die Vergütung liegt unter Ihrem Wunsch.",
    r_device_busy: "Pausiert, solange Sie das Gerät benutzen.",
    r_device_hot: "Pausiert: Das Gerät ist zu warm.",
    r_on_battery: "Pausiert: Mit Ladegerät geht es weiter.",
    r_disk_full: "Pausiert: Der Browser hat keinen Platz, um Arbeit zu sichern.",
    r_hidden: "Pausiert, solange diese Seite nicht vorn ist.",
    r_data_saver: "Pausiert: Der Datensparmodus ist an.",
    r_paused_by_operator: "Vom Betreiber angehalten.",
    r_paused_too_long: "Die Pause war lang, daher machen andere mit dieser Einheit weiter.",
    r_daemon_silent: "Pausiert: Der Server antwortet nicht. Die Arbeit bleibt hier sicher.",
    r_start_delayed: "Startet gleich …",
    r_held_out: "Heute nicht gebraucht: Per Los ruhen einige Geräte, damit die Wirkung messbar ist.",
    r_device: "Pausiert durch eine Ihrer Grenzen.",
    r_runtime: "Hier gibt es nichts, was dieses Gerät trainieren kann; andere können es.",
    r_memory: "Die Arbeit braucht mehr Speicher, als Sie angeboten haben.",
    r_quarantined: "Ergebnisse dieses Geräts waren falsch; der Betreiber hat es beiseitegestellt.",
    r_refused: "Diese Einheit ließ sich hier nicht trainieren; sie geht an andere.",
    k_post: "Vergütung",
    k_payout: "Auszahlung",
    k_reverse: "Korrektur",
};

export type Language = "en" | "de";

const ALL: Record<Language, Record<Text, string>> = { en, de };

/** The language to begin with: what was chosen here, else what the browser asks for. */
export function languageOf(chosen: string | undefined): Language {
    const wanted = chosen ?? navigator.language;
    return wanted.toLowerCase().startsWith("de") ? "de" : "en";
}

/** Sentences and numbers in one language. */
export class Tongue {
    constructor(readonly language: Language) {}

    say(text: Text, values: Record<string, string> = {}): string {
        return ALL[this.language][text].replace(/\{(\w+)\}/g, (whole, name: string) => values[name] ?? whole);
    }

    /** A reason in plain words; one that is not known here is said as a pause. */
    reason(word: string): string {
        const text = `r_${word}`;
        return text in en ? this.say(text as Text) : this.say("r_paused");
    }

    kind(word: string): string {
        const text = `k_${word}`;
        return text in en ? this.say(text as Text) : word;
    }

    number(value: number, digits = 0): string {
        return value.toLocaleString(this.language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
    }

    percent(share: number): string {
        return share.toLocaleString(this.language, { style: "percent", maximumFractionDigits: 0 });
    }

    /** Millionths of a euro as money; what is less than a cent with the digits it takes to see it. */
    money(micro: number): string {
        const euros = micro / 1e6;
        const digits = micro !== 0 && Math.abs(euros) < 0.1 ? (Math.abs(euros) < 0.001 ? 6 : 4) : 2;
        return euros.toLocaleString(this.language, { style: "currency", currency: "EUR", minimumFractionDigits: 2, maximumFractionDigits: digits });
    }

    /** Joules in watt hours, or what a person would say of them. */
    energy(joules: number): string {
        const hours = joules / 3600;
        if (hours >= 1000) return `${this.number(hours / 1000, 2)} kWh`;
        return `${this.number(hours, hours > 0 && hours < 0.1 ? 4 : hours < 10 ? 2 : 0)} Wh`;
    }

    bytes(count: number): string {
        return count < 1e6 ? `${this.number(count / 1e3)} kB` : `${this.number(count / 1e6, 1)} MB`;
    }

    time(seconds: number): string {
        const unit = (value: number, name: "second" | "minute" | "hour"): string =>
            new Intl.NumberFormat(this.language, { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: 0 }).format(value);
        if (seconds < 90) return unit(Math.ceil(seconds), "second");
        return seconds < 5400 ? unit(Math.round(seconds / 60), "minute") : unit(Math.round(seconds / 3600), "hour");
    }
}
