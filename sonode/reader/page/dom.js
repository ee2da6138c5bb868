// What every part of the page makes and says things with.

const SVG = 'http://www.w3.org/2000/svg';

export const $ = (id) => document.getElementById(id);

export function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text ?? '';
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
}

export function drawn(parent, tag, attributes = {}) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    parent.append(made);
    return made;
}

export function options(select, entries) {
    const value = select.value;
    select.replaceChildren(...entries.map(([key, text]) => element('option', text, { value: key })));
    if (entries.some(([key]) => String(key) === value)) select.value = value;
}

export function say(text, alert = false) {
    $('said').textContent = text;
    $('said').className = alert ? 'alert' : '';
}

// While `work` is under way nothing else can be done on the page. Gives what `work` gives.
export async function alone(work) {
    const main = document.querySelector('main'), focused = document.activeElement;
    main.inert = true;
    try {
        return await work();
    } finally {
        main.inert = false;
        focused.focus({ preventScroll: true });
    }
}

export const isAlone = () => document.querySelector('main').inert;

export const percent = (share) => `${(100 * share).toFixed(1)} %`;
