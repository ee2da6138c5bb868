// The page. All coordinates of boxes are pixels of the stored frame: half-open, whole numbers.
// `shot` is what is looked at: an image, its frame, the box, and how the pane shows it. Live panes
// share one; a pane that was kept beside has its own.

const SETTLED_MS = 250;
const NEAR = { mouse: 8, pen: 12, touch: 22 };  // CSS pixels around an edge that take hold of it
const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

const shot = { image: null, frame: 0, box: null, view: { x: 0, y: 0, scale: 1 }, again: null };
const panes = [];
let about = { sources: [] };
let settled = null;  // the box that is scored, once it rests
let timer = 0;

// --- asking the reader's server -----------------------------------------------------------------

async function ask(path, options) {
    try {
        const answer = await fetch(path, options);
        return { ok: answer.ok, status: answer.status, ...await answer.json() };
    } catch {
        return { ok: false, code: 'gone', message: 'the reader does not answer; is it still running?' };
    }
}

const post = (path, body) => ask(path, { method: 'POST', body: JSON.stringify(body) });

function say(text, alert = false) {
    $('said').textContent = text;
    $('said').className = alert ? 'alert' : '';
}

function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text ?? '';
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
}

function drawn(parent, tag, attributes = {}) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    parent.append(made);
    return made;
}

// --- panes --------------------------------------------------------------------------------------

function addPane(source, ofShot) {
    const figure = element('figure');
    const svg = drawn(figure, 'svg', {
        tabindex: 0, role: 'application', 'aria-label': 'Image with the box', 'aria-describedby': 'help',
    });
    const caption = element('figcaption');
    figure.append(caption);
    const pane = { figure, svg, caption, source, shot: ofShot, asked: null, answer: null, busy: false };
    pane.frame = drawn(svg, 'image', { class: 'frame', preserveAspectRatio: 'none' });
    pane.layer = drawn(svg, 'image', { class: 'layer', preserveAspectRatio: 'none' });
    pane.under = drawn(svg, 'rect', { class: 'box under' });
    pane.box = drawn(svg, 'rect', { class: 'box' });
    pane.handles = Array.from({ length: 8 }, () => drawn(svg, 'rect', { class: 'handle' }));
    pane.result = element('div', '', { class: 'result' });
    pane.frame.addEventListener('error', () => frameFailed(pane));
    pane.sized = new ResizeObserver(() => { if (pane.fitted) fit(pane.shot, pane); render(); });
    pane.sized.observe(svg);
    listen(pane);
    $('panes').append(figure);
    $('results').append(pane.result);
    panes.push(pane);
    return pane;
}

function removePane(pane) {
    pane.sized.disconnect();
    pane.figure.remove();
    pane.result.remove();
    panes.splice(panes.indexOf(pane), 1);
}

function fit(of, pane = panes[0]) {
    if (!of.image) return;
    const { clientWidth: width, clientHeight: height } = pane.svg;
    if (!width || !height) return;  // not laid out yet: the observer comes back
    const scale = Math.min(width / of.image.width, height / of.image.height);
    of.view = {
        scale, x: (of.image.width - width / scale) / 2, y: (of.image.height - height / scale) / 2,
    };
    for (const it of panes) if (it.shot === of) it.fitted = true;
}

function zoom(of, factor, at) {
    const { x, y, scale } = of.view;
    const next = Math.min(64, Math.max(.02, scale * factor));
    of.view = { scale: next, x: at.x - (at.x - x) * scale / next, y: at.y - (at.y - y) * scale / next };
    for (const it of panes) if (it.shot === of) it.fitted = false;
    render();
}

const middle = (pane) => {
    const { x, y, scale } = pane.shot.view;
    return { x: x + pane.svg.clientWidth / scale / 2, y: y + pane.svg.clientHeight / scale / 2 };
};

function put(node, [x0, y0, x1, y1]) {
    node.setAttribute('x', x0);
    node.setAttribute('y', y0);
    node.setAttribute('width', x1 - x0);
    node.setAttribute('height', y1 - y0);
}

function render() {
    for (const pane of panes) {
        const { image, frame, box, view } = pane.shot;
        const { clientWidth: width, clientHeight: height } = pane.svg;
        pane.svg.setAttribute('viewBox', `${view.x} ${view.y} ${width / view.scale} ${height / view.scale}`);
        pane.svg.classList.toggle('sharp', view.scale * devicePixelRatio >= 3);
        const href = image ? `images/${image.id}/${frame}.png` : '';
        if (pane.frame.getAttribute('href') !== href) pane.frame.setAttribute('href', href);
        if (image) put(pane.frame, [0, 0, image.width, image.height]);
        const layer = pane.answer?.layers?.[$('head').value];
        pane.layer.setAttribute('href', layer ? `data:image/png;base64,${layer.png}` : '');
        pane.layer.setAttribute('opacity', $('opacity').value / 100);
        if (layer) put(pane.layer, layer.box);
        const shown = holdsPixels(box);
        for (const node of [pane.under, pane.box, ...pane.handles]) node.toggleAttribute('hidden', !shown);
        if (!shown) continue;
        put(pane.under, box);
        put(pane.box, box);
        const [x0, y0, x1, y1] = box;
        const side = 7 / view.scale;
        const xs = [x0, (x0 + x1) / 2, x1], ys = [y0, (y0 + y1) / 2, y1];
        const places = ys.flatMap((y) => xs.map((x) => [x, y])).filter((_, index) => index !== 4);
        places.forEach(([x, y], index) => put(
            pane.handles[index], [x - side / 2, y - side / 2, x + side / 2, y + side / 2]));
    }
    const scale = panes[0].shot.view.scale;
    $('zoom').textContent = shot.image ? `${Math.round(100 * scale)} %` : '';
}

async function frameFailed(pane) {
    if (!pane.frame.getAttribute('href')) return;
    const answer = await ask(pane.frame.getAttribute('href'));
    if (answer.code === 'image_forgotten' && pane.shot.again && await pane.shot.again()) {
        pane.frame.setAttribute('href', '');
        render();
    } else if (!answer.ok) {
        say(answer.message, true);
    }
}

// --- the box ------------------------------------------------------------------------------------

const holdsPixels = (box) => box && box[2] > box[0] && box[3] > box[1];
const inside = (value, largest) => Math.min(largest, Math.max(0, Math.round(value)));

function setBox(box) {
    shot.box = box;
    settled = null;
    for (const pane of panes) if (pane.shot === shot) { pane.answer = null; showResult(pane); }
    showBox();
    clearTimeout(timer);
    if (holdsPixels(box)) {
        timer = setTimeout(() => { settled = box; panes.forEach(refresh); }, SETTLED_MS);
    }
    render();
}

function showBox() {
    const inputs = [...$('box').querySelectorAll('input')];
    inputs.forEach((input, index) => {
        input.disabled = !shot.image;
        if (document.activeElement !== input) input.value = shot.box ? shot.box[index] : '';
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

function listen(pane) {
    const { svg } = pane;
    const fingers = new Map();
    let drag = null;

    const place = (event) => {
        const frame = svg.getBoundingClientRect(), { x, y, scale } = pane.shot.view;
        return { x: x + (event.clientX - frame.left) / scale, y: y + (event.clientY - frame.top) / scale };
    };

    svg.addEventListener('pointerdown', (event) => {
        if (!pane.shot.image) return;
        event.preventDefault();
        svg.focus();
        svg.setPointerCapture(event.pointerId);
        fingers.set(event.pointerId, event);
        if (fingers.size === 2) {
            if (drag && !drag.pan) setBox(drag.before);
            drag = { pinch: true };
            return;
        }
        const start = place(event);
        if (event.button !== 0 || pane.shot !== shot) {
            drag = { pan: true };
            return;
        }
        const held = heldEdges(start, NEAR[event.pointerType] / shot.view.scale);
        drag = { start, held, before: shot.box };
        if (!held) {
            const { width, height } = shot.image;
            const corner = [inside(start.x, width), inside(start.y, height)];
            drag.box = [...corner, ...corner];
            drag.held = [2, 3];
        } else {
            drag.box = shot.box;
        }
    });

    svg.addEventListener('pointermove', (event) => {
        const before = fingers.get(event.pointerId);
        if (!before || !drag) return;
        fingers.set(event.pointerId, event);
        const { view } = pane.shot;
        if (drag.pinch && fingers.size === 2) {
            const other = [...fingers.values()].find((it) => it !== event);
            const length = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
            zoom(pane.shot, length(event) / (length(before) || 1), place(other));
        }
        if (drag.pinch || drag.pan) {
            const share = drag.pinch ? 2 : 1;
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
        if (drag && !drag.pan && !drag.pinch && box !== drag.before && (box[0] === box[2] || box[1] === box[3])) {
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

// --- scores -------------------------------------------------------------------------------------

function wanted(pane) {
    if (pane.shot !== shot || !shot.image || !settled) return null;
    return { source: pane.source, image: shot.image.id, frame: shot.frame, roi: settled };
}

// One request at a time for each pane; an answer to what is no longer there is dropped.
async function refresh(pane) {
    if (pane.busy) return;
    pane.busy = true;
    let sentAgain = false;
    for (let asked; (asked = wanted(pane)) && !pane.answer;) {
        const answer = await post('score', asked);
        if (JSON.stringify(wanted(pane)) !== JSON.stringify(asked)) continue;
        if (answer.code === 'image_forgotten' && !sentAgain && shot.again) {
            sentAgain = true;
            if (await shot.again()) continue;
        }
        pane.answer = answer;
        showResult(pane);
        render();
    }
    pane.busy = false;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function showResult(pane) {
    const { answer, result, shot: of } = pane;
    const facts = about.sources[pane.source];
    const model = answer?.model;
    const title = model ? `${model.name} ${model.version}` : facts.title;
    pane.caption.textContent = panes.length > 1 ? `${title}${of === shot ? '' : ', kept beside'}` : '';
    result.replaceChildren(element('h2', title));
    if (!answer) {
        const waits = holdsPixels(of.box) ? 'Scoring.' : of.box ? 'The box is empty: each maximum must be larger than its minimum.'
            : 'Draw a box around the lesion.';
        result.append(element('p', of.image ? waits : 'No image is open.', { class: 'faint' }));
    }
    if (answer && !answer.ok) {
        result.append(element('p', `No score: ${answer.message}`, { class: 'alert' }));
        const again = element('button', 'Try again', { type: 'button' });
        again.addEventListener('click', () => { pane.answer = null; showResult(pane); refresh(pane); });
        result.append(again);
    }
    for (const [name, score] of Object.entries(answer?.heads ?? {})) result.append(scoreOf(name, score));
    for (const warning of answer?.warnings ?? []) {
        result.append(element('p', warning.words, { class: 'alert' }));
    }
    if (model) {
        result.append(element('p', `Box ${answer.roi.join(', ')}; ${model.engine}; sha256 ${model.sha256}`, { class: 'faint' }));
    }
    showModel();
    showHeads();
    showJudge();
}

function scoreOf(name, score) {
    const part = element('div', '', { class: 'score', 'data-head': name });
    const line = element('p', `${name}: `);
    line.append(element('span', score.label, { class: 'label' }), `  ${percent(score.probability)}`);
    if (score.spread != null) line.append(`, networks differ by SD ${percent(score.spread)}`);
    part.append(line);
    const bar = element('div', '', { class: 'bar', 'aria-hidden': true });
    const filled = element('i');
    filled.style.width = `${100 * score.probability}%`;
    bar.append(filled);
    if (score.threshold != null) {
        const mark = element('b');
        mark.style.left = `${100 * score.threshold}%`;
        bar.append(mark);
    }
    part.append(bar);
    const words = [score.threshold == null
        ? 'The most probable label.' : `Positive above its threshold of ${percent(score.threshold)}.`];
    if (score.given) words.push(`It is the probability if the lesion is ${score.given}; else it means nothing.`);
    for (const [label, share] of Object.entries(score.distribution ?? {})) words.push(`${label} ${percent(share)}.`);
    part.append(element('p', words.join(' '), { class: 'faint' }));
    const set = score.label_set;
    if (score.uncertain) {
        part.append(element('p', `Uncertain: it may also be ${
            set?.labels.filter((label) => label !== score.label).join(' or ') || 'another label'}.`, { class: 'alert' }));
    }
    if (set) {
        const patients = Object.entries(set.patients).map(([label, count]) => `${label} ${count}`).join(', ');
        part.append(element('p', `Possible labels: ${set.labels.join(', ') || 'none'} (level ${
            percent(set.level)}, from patients: ${patients}).`, { class: 'faint' }));
    } else if (score.uncertain == null) {
        part.append(element('p', 'This model does not say when it is uncertain.', { class: 'faint' }));
    }
    return part;
}

function showModel() {
    const pane = panes[0], facts = cardOf(pane), model = pane.answer?.model ?? facts?.model;
    $('show-card').disabled = !facts;
    if (!model) {
        $('model').textContent = `${about.sources[pane.source].title}. Which model answers is known with the first score.`;
        return;
    }
    const known = facts ? `trained on ${facts.trained_on}, tested on ${facts.tested_on}`
        : 'its model card is not here; start the reader with its archive, too';
    $('model').textContent = `${model.name} ${model.version}, sha256 ${model.sha256.slice(0, 12)}, ${known}.`;
}

// The facts of the archive that answered, if the reader has it.
function cardOf(pane) {
    const digest = pane.answer?.model?.sha256 ?? about.sources[pane.source].model?.sha256;
    return about.sources.find((source) => digest && source.model?.sha256 === digest);
}

function options(select, entries) {
    const value = select.value;
    select.replaceChildren(...entries.map(([key, text]) => element('option', text, { value: key })));
    if (entries.some(([key]) => String(key) === value)) select.value = value;
}

function showHeads() {
    const layers = panes[0].answer?.layers;
    if (layers) {
        options($('head'), [...Object.keys(layers).map((head) => [head, head]), ['none', 'none']]);
        const layer = layers[$('head').value];
        $('map-words').textContent = layer ? `It shows where the network looked for: ${layer.target}. Colours compare places in this map, from 10 % of its maximum (${layer.max.toPrecision(2)}) on; not images.` : '';
    }
    $('map').hidden = !layers;
}

// --- the reader's judgement ---------------------------------------------------------------------

function showJudge() {
    const heads = panes[0].answer?.heads;
    $('judge').hidden = !about.record;
    if (heads) options($('judged-head'), Object.keys(heads).map((head) => [head, head]));
    for (const button of $('judge').querySelectorAll('button')) button.disabled = !heads;
    $('judged').textContent = '';
}

$('judge').addEventListener('submit', async (event) => {
    event.preventDefault();
    const { answer } = panes[0], verdict = event.submitter?.value;
    if (!answer?.answer || !verdict) return;
    const head = $('judged-head').value;
    const done = await post('judge', { answer: answer.answer, head, verdict, note: $('note').value });
    $('judged').className = done.ok ? '' : 'alert';
    $('judged').textContent = done.ok ? `Recorded: ${verdict}, ${head} ${answer.heads[head].label}.` : done.message;
    if (done.ok) $('note').value = '';
});

// --- images, frames, models ---------------------------------------------------------------------

function show(answer, again) {
    if (!answer.ok) {
        say(answer.message, true);
        return false;
    }
    shot.image = answer;
    shot.frame = answer.frame ?? 0;
    shot.again = again;
    $('frames').hidden = answer.frames < 2;
    $('frame').max = answer.frames - 1;
    fit(shot);
    const warnings = answer.warnings.map((it) => it.words);
    if (answer.changed) warnings.unshift('The image has changed since the run scored it.');
    say([`${answer.width} x ${answer.height} pixels.`, ...warnings].join(' '), Boolean(answer.changed));
    setFrame(shot.frame, answer.roi ?? null);
    return true;
}

async function open(file) {
    if (!file) return;
    if (file.size > about.max_bytes) {
        say(`The file has more than ${about.max_bytes / 2 ** 20} MiB; give a smaller one.`, true);
        return;
    }
    say('Opening.');
    const send = () => ask('images', { method: 'POST', body: file });
    show(await send(), async () => (await send()).ok);
}

function setFrame(frame, box = shot.box) {
    if (!shot.image || frame < 0 || frame >= shot.image.frames) return;
    shot.frame = frame;
    $('frame').value = frame;
    $('frame-number').textContent = `${frame + 1} of ${shot.image.frames}`;
    setBox(box);
}

function setDisplay() {
    const width = Number($('window').value), level = Number($('level').value);
    for (const part of $('display').querySelectorAll('feFuncR, feFuncG, feFuncB')) {
        part.setAttribute('slope', 255 / width);
        part.setAttribute('intercept', -(level - width / 2) / width);
    }
    const plain = width === 255 && level === 127.5;
    for (const pane of panes) pane.frame.setAttribute('filter', plain ? 'none' : 'url(#display)');
}

function setCompare(pane) {
    if (panes[1]) removePane(panes[1]);
    if (pane) addPane(pane.source, pane.shot).answer = pane.answer ?? null;
    if (panes[0].fitted) fit(shot);
    setDisplay();
    panes.forEach(showResult);
    render();
    panes.forEach(refresh);
}

$('file').addEventListener('change', (event) => { open(event.target.files[0]); event.target.value = ''; });
document.addEventListener('dragover', (event) => { event.preventDefault(); document.body.classList.add('over'); });
document.addEventListener('dragleave', () => document.body.classList.remove('over'));
document.addEventListener('drop', (event) => {
    event.preventDefault();
    document.body.classList.remove('over');
    open(event.dataTransfer.files[0]);
});
$('source').addEventListener('change', (event) => {
    panes[0].source = Number(event.target.value);
    setBox(shot.box);
});
$('compare').addEventListener('change', (event) => {
    setCompare(event.target.value === '' ? null : { source: Number(event.target.value), shot });
});
$('pin').addEventListener('click', () => {
    const { source, answer } = panes[0];
    $('compare').value = '';
    setCompare({ source, answer, shot: { ...shot, view: { ...shot.view } } });
});
$('frame').addEventListener('input', (event) => setFrame(Number(event.target.value)));
for (const id of ['window', 'level']) $(id).addEventListener('input', setDisplay);
$('display-reset').addEventListener('click', () => { $('window').value = 255; $('level').value = 127.5; setDisplay(); });
for (const id of ['head', 'opacity']) $(id).addEventListener('input', () => { showHeads(); render(); });
$('zoom-in').addEventListener('click', () => zoom(shot, 1.25, middle(panes[0])));
$('zoom-out').addEventListener('click', () => zoom(shot, .8, middle(panes[0])));
$('zoom-fit').addEventListener('click', () => { fit(shot); render(); });
$('box').addEventListener('change', () => {
    const box = [...$('box').querySelectorAll('input')].map((input) => input.valueAsNumber);
    if (box.every(Number.isInteger)) setBox(box);
});
$('theme').addEventListener('click', (event) => {
    const light = document.documentElement.dataset.theme === 'dark';
    document.documentElement.dataset.theme = light ? 'light' : 'dark';
    event.target.setAttribute('aria-pressed', light);
});
$('show-card').addEventListener('click', () => {
    $('card').querySelector('pre').textContent = cardOf(panes[0])?.card ?? '';
    $('card').showModal();
});

// --- batch results ------------------------------------------------------------------------------

const list = { start: 0, total: 0, rows: [], at: -1 };

async function fetchRows(start) {
    const query = new URLSearchParams({ which: $('which').value, order: $('order').value, start });
    const answer = await ask(`rows?${query}`);
    if (!answer.ok) {
        say(answer.message, true);
        return false;
    }
    Object.assign(list, { start, total: answer.total, rows: answer.rows });
    showRows();
    return true;
}

function showRows() {
    const { heads } = about.run;
    const table = element('table'), top = table.createTHead().insertRow(), body = table.createTBody();
    const many = about.run.runs > 1;
    const names = ['row', 'ids', ...Array.from({ length: about.run.runs }, (_, run) => heads.map(
        (head) => many ? `${head}, run ${run + 1}` : head)).flat()];
    for (const name of names) top.append(element('th', name, { scope: 'col' }));
    list.rows.forEach((row, index) => {
        const line = body.insertRow();
        if (list.start + index === list.at) line.setAttribute('aria-current', 'true');
        const button = element('button', row.number + 1, { type: 'button', 'aria-label': `Open row ${row.number + 1}` });
        button.addEventListener('click', () => openRow(list.start + index));
        line.insertCell().append(button);
        line.insertCell().textContent = row.names.join(', ');
        for (const run of row.runs) {
            if (run.status !== 'ok') {
                const cell = line.insertCell();
                cell.colSpan = heads.length;
                cell.className = 'words';
                cell.textContent = run.message ? `${run.status}: ${run.message}` : run.status;
                continue;
            }
            for (const head of heads) {
                const { probability, label, uncertain } = run.heads[head];
                const cell = line.insertCell(), first = row.runs[0].heads[head];
                const changed = first && first.label !== label;
                cell.className = changed ? 'changed' : '';
                cell.textContent = `${percent(probability)} ${label}${uncertain ? ', uncertain' : ''}${changed ? ', changed' : ''}`;
            }
        }
    });
    $('table').replaceChildren(table);
    const open = table.querySelector('[aria-current]');
    if (open) $('table').scrollTop = open.offsetTop - $('table').clientHeight / 2;  // the page stays
    $('counted').textContent = `${list.total} rows${list.at >= 0 ? `, ${list.at + 1} is open` : ''}`;
}

async function openRow(at) {
    if (at < 0 || at >= list.total) return;
    const start = Math.floor(at / about.run.page) * about.run.page;
    if (start !== list.start && !await fetchRows(start)) return;
    list.at = at;
    showRows();
    const { number } = list.rows[at - list.start];
    $('panes').scrollIntoView({ block: 'nearest' });
    say('Opening.');
    const send = () => post(`rows/${number}`, {});
    const answer = await send();
    if (list.at !== at) return;  // another row was asked for meanwhile
    if (!show(answer, async () => (await send()).ok)) { shot.image = null; setBox(null); }
}

for (const id of ['which', 'order']) $(id).addEventListener('change', () => { list.at = -1; fetchRows(0); });
$('previous').addEventListener('click', () => openRow(list.at - 1));
$('next').addEventListener('click', () => openRow(list.at + 1));
document.addEventListener('keydown', (event) => {
    if (!about.run || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches('input, textarea, select') || $('card').open) return;
    if (event.key === 'n' || event.key === 'N') openRow(list.at + 1);
    if (event.key === 'p' || event.key === 'P') openRow(list.at - 1);
});

// --- start --------------------------------------------------------------------------------------

about = { ...about, ...await ask('about') };
if (about.ok) {
    const titles = about.sources.map((source, index) => [index, source.title]);
    options($('source'), titles);
    options($('compare'), [['', 'nothing'], ...titles]);
    $('pin').hidden = false;
    addPane(0, shot);
    showResult(panes[0]);
    showBox();
    render();
    if (about.run) {
        const { heads, runs } = about.run;
        options($('order'), [['manifest', 'as in the manifest'], ...heads.map((head) => [`high:${head}`, `${head}, high first`]),
            ...(runs > 1 ? heads.map((head) => [`change:${head}`, `${head}, largest change first`]) : [])]);
        if (runs < 2) $('which').querySelector('[value=flipped]').remove();
        $('run').hidden = false;
        fetchRows(0);
    }
} else {
    say(about.message, true);
}
