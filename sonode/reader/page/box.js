// The box: drawn, moved and resized by mouse, pen, finger, keys and numbers.

import { $, say } from './dom.js';
import { fit, middle, render, zoom } from './panes.js';
import { refresh, showResult } from './scores.js';
import { holdsPixels, panes, session, shot } from './state.js';

const SETTLED_MS = 250;
const NEAR = { mouse: 8, pen: 12, touch: 22 };  // CSS pixels around an edge that take hold of it

let timer = 0;

const inside = (value, largest) => Math.min(largest, Math.max(0, Math.round(value)));

export function setBox(box) {
    box = shot.image?.study?.roi ?? box;  // of a study, once the first reading stands
    shot.box = box;
    session.settled = null;
    for (const pane of panes) if (pane.shot === shot) { pane.answer = null; showResult(pane); }
    showBox();
    clearTimeout(timer);
    if (holdsPixels(box)) {
        timer = setTimeout(() => { session.settled = box; panes.forEach(refresh); }, SETTLED_MS);
    }
    render();
}

export function showBox() {
    const inputs = [...$('box').querySelectorAll('input')];
    inputs.forEach((input, index) => {
        input.disabled = !shot.image || Boolean(shot.image.study?.roi);
        if (input.disabled || document.activeElement !== input) input.value = shot.box ? shot.box[index] : '';
        if (shot.image) input.max = index % 2 ? shot.image.height : shot.image.width;
    });
}

// Which edges of the box are at hand: 0 to 3 for x min, y min, x max, y max; [] inside, null outside.
function heldEdges(point, near) {
    if (!shot.box) return null;
    const [x0, y0, x1, y1] = shot.box;
    const within = Math.min(near, (x1 - x0) / 3, (y1 - y0) / 3);  // so that a small box can be moved
    if (point.x < x0 - near || point.x > x1 + near || point.y < y0 - near || point.y > y1 + near) return null;
    const held = [];
    if (point.x < x0 + within) held.push(0); else if (point.x > x1 - within) held.push(2);
    if (point.y < y0 + within) held.push(1); else if (point.y > y1 - within) held.push(3);
    return held;
}

function moved([x0, y0, x1, y1], dx, dy) {
    const { width, height } = shot.image;
    const x = Math.min(width - x1, Math.max(-x0, dx)), y = Math.min(height - y1, Math.max(-y0, dy));
    return [x0 + x, y0 + y, x1 + x, y1 + y];
}

const sorted = ([a, b, c, d]) => [Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)];

export function listen(pane) {
    const { svg } = pane;
    const fingers = new Map();
    let drag = null;

    // Another image has come meanwhile: what was begun on the one before is no box on this one.
    const outdated = () => drag && drag.image !== pane.shot.image;
    const place = (event) => {
        const frame = svg.getBoundingClientRect(), { x, y, scale } = pane.shot.view;
        return { x: x + (event.clientX - frame.left) / scale, y: y + (event.clientY - frame.top) / scale };
    };

    svg.addEventListener('pointerdown', (event) => {
        const { image } = pane.shot;
        if (!image) return;
        event.preventDefault();
        svg.focus();
        svg.setPointerCapture(event.pointerId);
        fingers.set(event.pointerId, event);
        if (fingers.size === 2) {
            if (drag?.held && !outdated()) setBox(drag.before);
            drag = { image, pinch: true };
            return;
        }
        const start = place(event);
        if (event.button !== 0 || pane.shot !== shot) {
            drag = { image, pan: true };
            return;
        }
        const held = heldEdges(start, NEAR[event.pointerType] / shot.view.scale);
        drag = { image, start, held, before: shot.box };
        if (!held) {
            const { width, height } = image;
            const corner = [inside(start.x, width), inside(start.y, height)];
            drag.box = [...corner, ...corner];
            drag.held = [2, 3];
        } else {
            drag.box = shot.box;
        }
    });

    svg.addEventListener('pointermove', (event) => {
        const before = fingers.get(event.pointerId);
        if (outdated()) drag = null;
        if (!before || !drag) return;
        fingers.set(event.pointerId, event);
        if (drag.pinch && fingers.size === 2) {
            const other = [...fingers.values()].find((it) => it !== event);
            const length = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
            const from = place(before), to = place(other);
            const between = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
            zoom(pane.shot, length(event) / (length(before) || 1), between);
        }
        if (drag.pinch || drag.pan) {
            const { view } = pane.shot, share = drag.pinch ? 2 : 1;
            view.x -= (event.clientX - before.clientX) / view.scale / share;
            view.y -= (event.clientY - before.clientY) / view.scale / share;
            pane.fitted = false;
            render();
            return;
        }
        const point = place(event), { width, height } = shot.image;
        if (drag.held.length) {
            const box = [...drag.box];
            for (const edge of drag.held) box[edge] = inside(...(edge % 2 ? [point.y, height] : [point.x, width]));
            setBox(sorted(box));
        } else {
            setBox(moved(drag.box, Math.round(point.x - drag.start.x), Math.round(point.y - drag.start.y)));
        }
    });

    const end = (event) => {
        if (!fingers.delete(event.pointerId)) return;
        const { box } = shot;
        if (drag?.held && !outdated() && box && box !== drag.before && !holdsPixels(box)) {
            setBox(drag.before);  // no box was drawn
        }
        if (!fingers.size) drag = null;
    };
    svg.addEventListener('pointerup', end);
    svg.addEventListener('pointercancel', end);
    svg.addEventListener('contextmenu', (event) => event.preventDefault());
    svg.addEventListener('wheel', (event) => {
        if (!pane.shot.image) return;
        event.preventDefault();
        zoom(pane.shot, Math.exp(-event.deltaY / 400), place(event));
    }, { passive: false });
    svg.addEventListener('keydown', (event) => { if (pressed(pane, event)) event.preventDefault(); });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function pressed(pane, event) {
    const { image, box } = shot;
    if (!image || event.altKey || event.metaKey) return false;
    if (pane.shot !== shot && !'+=-0'.includes(event.key)) return false;  // kept beside: only looked at
    const step = event.ctrlKey ? 10 : 1;
    if (event.key in ARROWS && box) {
        const [dx, dy] = ARROWS[event.key].map((it) => it * step);
        setBox(event.shiftKey
            ? [box[0], box[1], Math.min(image.width, Math.max(box[0] + 1, box[2] + dx)),
                Math.min(image.height, Math.max(box[1] + 1, box[3] + dy))]
            : moved(box, dx, dy));
    } else if (event.key in ARROWS) {
        say('There is no box yet: press B, or draw one.');
    } else if (event.ctrlKey) {
        return false;
    } else if (event.key === 'b' || event.key === 'B') {
        const at = middle(pane), { scale } = pane.shot.view;
        const w = pane.svg.clientWidth / scale / 6, h = pane.svg.clientHeight / scale / 6;
        const made = [inside(at.x - w, image.width - 1), inside(at.y - h, image.height - 1)];
        setBox([...made, Math.max(made[0] + 1, inside(at.x + w, image.width)),
            Math.max(made[1] + 1, inside(at.y + h, image.height))]);
    } else if (event.key === 'Delete' || event.key === 'Backspace') {
        setBox(null);
    } else if (event.key === '+' || event.key === '=') {
        zoom(pane.shot, 1.25, middle(pane));
    } else if (event.key === '-') {
        zoom(pane.shot, .8, middle(pane));
    } else if (event.key === '0') {
        fit(pane.shot, pane);
        render();
    } else if (event.key === 'PageUp' || event.key === 'PageDown') {
        setFrame(shot.frame + (event.key === 'PageUp' ? -1 : 1));
    } else {
        return false;
    }
    return true;
}

// Another frame; the box stays where it is.
export function setFrame(frame, box = shot.box) {
    if (!shot.image || frame < 0 || frame >= shot.image.frames) return;
    shot.frame = frame;
    $('frame').value = frame;
    $('frame-number').textContent = `${frame + 1} of ${shot.image.frames}`;
    setBox(box);
}

$('box').addEventListener('change', () => {
    const box = [...$('box').querySelectorAll('input')].map((input) => input.valueAsNumber);
    if (box.every(Number.isInteger)) setBox(box);
});
