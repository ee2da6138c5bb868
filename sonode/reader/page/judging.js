// What the reader says: of a score, or, in a study, of the image before and after the scores.

import { $, alone, element, options, say } from './dom.js';
import { refresh, showResult } from './scores.js';
import { holdsPixels, panes, post, session, shot, titled } from './state.js';

const CANNOT = 'cannot judge';

let judged = null;  // the answer that the message is about
let noted = '';  // the image that the note is about
let last = '';  // what was recorded last

function showJudge() {
    const { about } = session, { answer } = panes[0], heads = answer?.heads;
    $('judge').hidden = !about.record || about.study || !heads;
    $('study').hidden = !about.study;
    if (heads) options($('judged-head'), Object.keys(heads).map((head) => [head, titled(head)]));
    if (answer !== judged) $('judged').textContent = '';
    judged = answer;
    if (shot.image && shot.image.id !== noted) {
        noted = shot.image.id;
        $('note').value = '';
    }
    if (about.study) showStudy();
}

$('judge').addEventListener('submit', async (event) => {
    event.preventDefault();
    const { answer } = panes[0], verdict = event.submitter?.value;
    if (!answer?.answer || !verdict) return;
    const head = $('judged-head').value, note = $('note').value;
    const said = [answer.answer, head, verdict].join();
    if (said === last && !note) return;  // pressed twice
    const done = await alone(() => post('judge', { answer: answer.answer, head, verdict, note }));
    $('judged').className = done.ok ? '' : 'alert';
    $('judged').textContent = done.ok ? `Recorded: ${verdict}, ${titled(head)} ${answer.heads[head].label}.` : done.message;
    if (!done.ok) return;
    $('note').value = '';
    last = said;
});

// --- a study ------------------------------------------------------------------------------------

const STAGES = {
    before: ['First reading, without the scores', 'Record, and show the scores'],
    after: ['Second reading, with the scores', 'Record'],
};

let asked = '';  // the reading whose answers are on the page

function showStudy() {
    const stage = shot.image?.study.stage, words = STAGES[stage];
    const reading = JSON.stringify([shot.image?.id, shot.image?.study.frame, shot.image?.study.roi, stage]);
    $('questions').hidden = session.opening;
    if (reading !== asked && !session.opening) {  // else what is chosen stays: a file may not open
        asked = reading;
        $('questions').replaceChildren(...words ? session.about.study.map(question) : []);
        $('study-note').value = '';
    }
    $('study-title').textContent = words?.[0] ?? 'Reading';
    $('study-record').textContent = words?.[1] ?? 'Record';
    const fixed = shot.image?.study.frame ?? shot.frame, elsewhere = fixed !== shot.frame;
    const ready = !elsewhere && (stage === 'before' ? holdsPixels(shot.box) : Boolean(panes[0].answer?.answer));
    $('study-record').disabled = !words || !ready;
    $('studied').className = 'faint';
    const drawn = ready ? '' : 'Draw the box first.', seen = 'You have judged its score outside the study: it is not asked.';
    const told = { before: drawn, done: 'Both readings are recorded.', seen }[stage] ?? '';
    $('studied').textContent = words && elsewhere ? `This reading is of frame ${fixed + 1}: go back to it.` : told;
}

function question({ head, labels, given }) {
    const part = element('fieldset', '', { class: 'question' });
    part.append(element('legend', `${titled(head)}${given ? `, if the lesion is ${given}` : ''}`));
    for (const label of [...labels, CANNOT]) {
        const line = element('label');
        line.append(element('input', '', { type: 'radio', name: `study-${head}`, value: label, required: '' }), label);
        part.append(line);
    }
    return part;
}

$('study').addEventListener('submit', async (event) => {
    event.preventDefault();
    const { stage } = shot.image.study;
    const said = new FormData(event.target);
    const labels = Object.fromEntries(session.about.study.map(({ head }) => [head, said.get(`study-${head}`)]));
    const { image } = shot;
    const done = await alone(() => post(`study/${stage}`, {
        image: image.id, frame: shot.frame, roi: shot.box, labels, note: $('study-note').value,
        answer: stage === 'after' ? panes[0].answer.answer : null,
    }));
    if (!done.ok) {
        $('studied').className = 'alert';
        $('studied').textContent = done.message;
        return;
    }
    image.study = done.study;
    document.dispatchEvent(new Event('read'));
    panes.forEach(showResult);
    panes.forEach(refresh);
    if (done.study.stage === 'done') say(session.about.run ? 'Recorded. N opens the next row.' : 'Recorded. Open the next image.');
});

document.addEventListener('answered', showJudge);
