// Every text on the page whose contrast against what it stands on is below 4.5 (WCAG 2.2, 1.4.3), with the ratio.
() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const over = (colour, below) => {
        for (const each of [below, colour]) {
            canvas.fillStyle = each;
            canvas.fillRect(0, 0, 1, 1);
        }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const css = ([red, green, blue]) => `rgb(${red}, ${green}, ${blue})`;
    const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const light = (colour) => colour.reduce((sum, part, place) => sum + [0.2126, 0.7152, 0.0722][place] * linear(part / 255), 0);
    const ground = (element) => over(getComputedStyle(element ?? document.body).backgroundColor, element === null ? "Canvas" : css(ground(element.parentElement)));
    const poor = [];
    for (const element of document.querySelectorAll("body *")) {
        const says = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
        if (!says || !element.checkVisibility() || element.closest(".unseen, .skip, option")) continue;
        const below = ground(element);
        const [one, other] = [light(over(getComputedStyle(element).color, css(below))), light(below)];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} <${element.tagName} ${element.className}> ${element.textContent.slice(0, 40)}`);
    }
    return poor;
}
