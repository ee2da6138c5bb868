// The rows of a run: listed, filtered, ordered, stepped through.

import { $, element, isAlone, options, percent, say } from './dom.js';
import { open } from './images.js';
import { ask, post, session, titled } from './state.js';

const list = { start: 0, total: 0, rows: [], at: -1, shown: false };  // whether row `at` is on the page
let asked = 0;

// False where they do not come, or others were asked for meanwhile.
async function fetchRows(start) {
    const mine = asked += 1;
    const query = new URLSearchParams({ which: $('which').value, order: $('order').value, start });
    const answer = await ask(`rows?${query}`);
    if (mine !== asked) return false;
    if (!answer.ok) {
        say(answer.message, true);
        return false;
    }
    Object.assign(list, { start, total: answer.total, rows: answer.rows });
    showRows();
    return true;
}

function showRows() {
    const { heads } = session.about.run;
    const table = element('table'), top = table.createTHead().insertRow(), body = table.createTBody();
    const many = session.about.run.runs > 1;
    const names = ['row', session.about.study ? 'reading' : 'ids', ...Array.from({ length: session.about.run.runs }, (_, run) => heads.map(
        (head) => many ? `${titled(head)}, run ${run + 1}` : titled(head))).flat()];
    for (const name of names) top.append(element('th', name, { scope: 'col' }));
    list.rows.forEach((row, index) => {
        const line = body.insertRow();
        if (list.shown && list.start + index === list.at) line.setAttribute('aria-current', 'true');
        const button = element('button', row.number + 1, { type: 'button', 'aria-label': `Open row ${row.number + 1}` });
        line.addEventListener('click', (event) => {
            if (event.target === button || getSelection().isCollapsed) openRow(list.start + index);  // else text was marked
        });
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
                cell.textContent = `${percent(probability)}, called ${label}${uncertain ? ', uncertain' : ''}${changed ? ', changed' : ''}`;
            }
        }
    });
    const focused = $('table').contains(document.activeElement);
    $('table').replaceChildren(table);
    const open = table.querySelector('[aria-current]');
    if (open && focused) open.querySelector('button').focus({ preventScroll: true });
    if (open) $('table').scrollTop = open.offsetTop - $('table').clientHeight / 2;  // the page stays
    $('counted').textContent = `${list.total.toLocaleString('en')} rows${list.shown ? `, ${list.at + 1} is open` : ''}`;
}

async function openRow(at) {
    if (at < 0 || at >= list.total) return;
    const start = Math.floor(at / session.about.run.page) * session.about.run.page, before = list.at;
    Object.assign(list, { at, shown: true });  // at once: N pressed twice goes two rows on
    if (start !== list.start && !await fetchRows(start)) {
        if (list.at === at) list.at = before;  // else N would pass this row over
        return;
    }
    showRows();
    const { number } = list.rows[at - list.start];
    $('panes').scrollIntoView({ block: 'nearest' });
    open(() => post(`rows/${number}`, {}));
}

for (const id of ['which', 'order']) $(id).addEventListener('change', () => { Object.assign(list, { at: -1, shown: false }); fetchRows(0); });
document.addEventListener('file', () => { list.shown = false; if (session.about.run) showRows(); });
document.addEventListener('read', () => { if (session.about.run) fetchRows(list.start); });
$('previous').addEventListener('click', () => openRow(list.at - 1));
$('next').addEventListener('click', () => openRow(list.at + 1));
document.addEventListener('keydown', (event) => {
    if (!session.about.run || isAlone() || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches('input:not([type=radio]), textarea, select') || $('card').open) return;
    if (event.key === 'n' || event.key === 'N') openRow(list.at + 1);
    if (event.key === 'p' || event.key === 'P') openRow(list.at - 1);
});

export function start() {
    const { heads, runs } = session.about.run, { study } = session.about;
    options($('order'), [['manifest', 'as in the manifest'], ...heads.map((head) => [`high:${head}`, `${titled(head)}, high first`]),
        ...(runs > 1 ? heads.map((head) => [`change:${head}`, `${titled(head)}, largest change first`]) : [])]);
    if (runs < 2) $('which').querySelector('[value=flipped]').remove();
    for (const id of ['choose-which', 'choose-order']) $(id).hidden = Boolean(study);
    $('run').hidden = false;
    fetchRows(0);
}
