// Where images are drawn: each pane shows a shot, with its box and its heat map.

import { $, drawn, element, say } from './dom.js';
import { ask, holdsPixels, panes, session, shot } from './state.js';

const HANDLE = 7;  // CSS pixels

export function addPane(source, ofShot) {
    const figure = element('figure');
    const svg = drawn(figure, 'svg', {
        tabindex: 0, role: 'application', 'aria-label': 'Image with the box', 'aria-describedby': 'help',
    });
    const caption = element('figcaption');
    figure.append(caption);
    const pane = { figure, svg, caption, source, shot: ofShot, answer: null, busy: false };
    pane.frame = drawn(svg, 'image', { class: 'frame', preserveAspectRatio: 'none' });
    pane.layer = drawn(svg, 'image', { class: 'layer', preserveAspectRatio: 'none' });
    pane.under = drawn(svg, 'rect', { class: 'box under' });
    pane.box = drawn(svg, 'rect', { class: 'box' });
    pane.handles = Array.from({ length: 8 }, () => drawn(svg, 'rect', { class: 'handle' }));
    pane.result = element('div', '', { class: 'result' });
    pane.frame.addEventListener('error', () => frameFailed(pane));
    pane.frame.addEventListener('load', () => pane.frame.setAttribute('visibility', 'visible'));
    pane.sized = new ResizeObserver(() => { if (pane.fitted) fit(pane.shot, pane); render(); });
    pane.sized.observe(svg);
    $('panes').append(figure);
    $('results').append(pane.result);
    panes.push(pane);
    return pane;
}

export function removePane(pane) {
    pane.sized.disconnect();
    pane.figure.remove();
    pane.result.remove();
    panes.splice(panes.indexOf(pane), 1);
}

export function fit(of, pane = panes[0]) {
    if (!of.image) return;
    const { clientWidth: width, clientHeight: height } = pane.svg;
    if (!width || !height) return;  // not laid out yet: the observer comes back
    const scale = Math.min(width / of.image.width, height / of.image.height);
    of.view = {
        scale, x: (of.image.width - width / scale) / 2, y: (of.image.height - height / scale) / 2,
    };
    for (const it of panes) if (it.shot === of) it.fitted = true;
}

export function zoom(of, factor, at) {
    const { x, y, scale } = of.view;
    const next = Math.min(64, Math.max(.02, scale * factor));
    of.view = { scale: next, x: at.x - (at.x - x) * scale / next, y: at.y - (at.y - y) * scale / next };
    for (const it of panes) if (it.shot === of) it.fitted = false;
    render();
}

export const middle = (pane) => {
    const { x, y, scale } = pane.shot.view;
    return { x: x + pane.svg.clientWidth / scale / 2, y: y + pane.svg.clientHeight / scale / 2 };
};

function put(node, [x0, y0, x1, y1]) {
    node.setAttribute('x', x0);
    node.setAttribute('y', y0);
    node.setAttribute('width', x1 - x0);
    node.setAttribute('height', y1 - y0);
}

export function render() {
    for (const pane of panes) {
        const { image, frame, box, view } = pane.shot;
        const { clientWidth: width, clientHeight: height } = pane.svg;
        pane.svg.setAttribute('viewBox', `${view.x} ${view.y} ${width / view.scale} ${height / view.scale}`);
        pane.svg.classList.toggle('sharp', view.scale * devicePixelRatio >= 3);
        const href = image ? `images/${image.id}/${frame}.png` : '';
        if (pane.frame.getAttribute('href') !== href) {
            pane.frame.setAttribute('visibility', 'hidden');  // the browser shows the one before until this one is here
            pane.frame.setAttribute('href', href);
        }
        if (image) put(pane.frame, [0, 0, image.width, image.height]);
        const layer = pane.answer?.layers?.[$('head').value];
        pane.layer.setAttribute('href', layer ? `data:image/png;base64,${layer.png}` : '');
        pane.layer.setAttribute('opacity', $('opacity').value / 100);
        if (layer) put(pane.layer, layer.box);
        drawBox(pane, box, view);
    }
    $('zoom').textContent = shot.image ? `${Math.round(100 * panes[0].shot.view.scale)} %` : '';
    $('drop').hidden = Boolean(shot.image) || session.opening;
}

function drawBox(pane, box, view) {
    const shown = holdsPixels(box);
    for (const node of [pane.under, pane.box, ...pane.handles]) node.toggleAttribute('hidden', !shown);
    if (!shown) return;
    put(pane.under, box);
    put(pane.box, box);
    const [x0, y0, x1, y1] = box;
    const side = HANDLE / view.scale;
    const xs = [x0, (x0 + x1) / 2, x1], ys = [y0, (y0 + y1) / 2, y1];
    const places = ys.flatMap((y) => xs.map((x) => [x, y])).filter((_, index) => index !== 4);
    places.forEach(([x, y], index) => put(
        pane.handles[index], [x - side / 2, y - side / 2, x + side / 2, y + side / 2]));
}

async function frameFailed(pane) {
    const href = pane.frame.getAttribute('href');
    if (!href) return;
    const answer = await ask(href);
    if (pane.frame.getAttribute('href') !== href) return;
    if (answer.code === 'image_forgotten' && pane.shot.again && await pane.shot.again()) {
        pane.frame.setAttribute('href', '');
        render();
    } else if (!answer.ok) {
        say(answer.message, true);
    }
}
