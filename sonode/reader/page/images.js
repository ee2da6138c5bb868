// Opening and dropping images; how they are shown; a second one beside the first.

import { listen, setBox, setFrame } from './box.js';
import { $, isAlone, options, say } from './dom.js';
import { addPane, fit, middle, removePane, render, zoom } from './panes.js';
import { cardOf, refresh, showHeads, showResult } from './scores.js';
import { ask, panes, session, shot } from './state.js';

function show(answer, again) {
    shot.image = answer;
    shot.again = again;
    $('frames').hidden = answer.frames < 2;
    $('frame').max = answer.frames - 1;
    fit(shot);
    resetDisplay();  // a narrow window of the image before could hide what this one shows
    const warnings = answer.warnings.map((it) => it.words);
    if (answer.changed) warnings.unshift('The image has changed since the run scored it.');
    say([`${answer.width} x ${answer.height} pixels.`, ...warnings].join(' '), Boolean(answer.changed));
    setFrame(answer.study?.frame ?? answer.frame ?? 0, answer.roi ?? null);
}

let asked = 0, before;

// Shows the image that `send` asks for; of several that were asked for, the last one. Until it is
// here there is none, so that nobody judges the one before. Where it does not come, that one is
// shown again if `back`.
export async function open(send, back) {
    const mine = asked += 1;
    if (!session.opening) before = { ...shot };
    session.opening = true;
    shot.image = null;
    setBox(null);
    say('Opening.');
    const answer = await send();
    if (mine !== asked) return;
    session.opening = false;
    if (answer.ok) {
        show(answer, async () => (await send()).ok);
        return;
    }
    say(answer.message, true);
    if (back) Object.assign(shot, before);
    setBox(shot.image ? shot.box : null);
}

function openFile(file) {
    if (!file) return;
    const { max_bytes: most } = session.about;
    if (file.size > most) {
        say(`The file has more than ${most / 2 ** 20} MiB; give a smaller one.`, true);
        return;
    }
    document.dispatchEvent(new Event('file'));
    open(() => ask('images', { method: 'POST', body: file }), true);
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

function resetDisplay() {
    $('window').value = 255;
    $('level').value = 127.5;
    setDisplay();
}

// Whether the second pane has an image of its own.
const kept = () => panes.length > 1 && panes[1].shot !== shot;

function setCompare(pane) {
    if (panes[1]) removePane(panes[1]);
    if (pane) {
        const added = addPane(pane.source, pane.shot);
        added.answer = pane.answer ?? null;
        added.fitted = panes[0].fitted;  // to its own width, once it has one
        listen(added);
    }
    if (panes[0].fitted) fit(shot);
    $('pin').textContent = kept() ? 'Remove the image beside' : 'Keep this image beside';
    setDisplay();
    panes.forEach(showResult);
    render();
    panes.forEach(refresh);
}

export function start() {
    const { about } = session, titles = about.sources.map((source, index) => [index, source.title]);
    options($('source'), titles);
    options($('compare'), [['', 'no other'], ...titles]);
    for (const id of ['choose-source', 'choose-compare']) $(id).hidden = about.study || titles.length < 2;
    $('pin').hidden = Boolean(about.study);
    listen(addPane(0, shot));
    showResult(panes[0]);
    render();
}

$('file').addEventListener('change', (event) => { openFile(event.target.files[0]); event.target.value = ''; });
document.addEventListener('dragover', (event) => { event.preventDefault(); document.body.classList.add('over'); });
document.addEventListener('dragleave', () => document.body.classList.remove('over'));
document.addEventListener('drop', (event) => {
    event.preventDefault();
    document.body.classList.remove('over');
    if (isAlone()) return;
    openFile(event.dataTransfer.files[0]);
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
    setCompare(kept() ? null : { source, answer, shot: { ...shot, view: { ...shot.view } } });
});
$('frame').addEventListener('input', (event) => setFrame(Number(event.target.value)));
for (const id of ['window', 'level']) $(id).addEventListener('input', setDisplay);
$('display-reset').addEventListener('click', resetDisplay);
for (const id of ['head', 'opacity']) $(id).addEventListener('input', () => { showHeads(); render(); });
$('zoom-in').addEventListener('click', () => zoom(shot, 1.25, middle(panes[0])));
$('zoom-out').addEventListener('click', () => zoom(shot, .8, middle(panes[0])));
$('zoom-fit').addEventListener('click', () => { fit(shot); render(); });
$('theme').addEventListener('click', (event) => {
    const light = document.documentElement.dataset.theme === 'dark';
    document.documentElement.dataset.theme = light ? 'light' : 'dark';
    event.target.textContent = light ? 'Dark room' : 'Light room';
});
$('show-card').addEventListener('click', () => {
    $('card').querySelector('pre').textContent = cardOf(panes[0])?.card ?? '';
    $('card').showModal();
});
