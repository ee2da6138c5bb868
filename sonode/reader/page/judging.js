// What the reader says: of a score, or, in a study, of the image before and after the scores.

import { $, element, options, say } from './dom.js';
import { refresh, showResult } from './scores.js';
import { holdsPixels, panes, post, session, shot, titled } from './state.js';

const CANNOT = 'cannot judge';

function showJudge() {
    const { about } = session, heads = panes[0].answer?.heads;
    $('judge').hidden = !about.record || about.study || !heads;
    $('study').hidden = !about.study;
    if (heads) options($('judged-head'), Object.keys(heads).map((head) => [head, titled(head)]));
    $('judged').textContent = '';
    if (about.study) showStudy();
}

$('judge').addEventListener('submit', async (event) => {
    event.preventDefault();
    const { answer } = panes[0], verdict = event.submitter?.value;
    if (!answer?.answer || !verdict) return;
    const head = $('judged-head').value;
    const done = await post('judge', { answer: answer.answer, head, verdict, note: $('note').value });
    $('judged').className = done.ok ? '' : 'alert';
    $('judged').textContent = done.ok ? `Recorded: ${verdict}, ${titled(head)} ${answer.heads[head].label}.` : done.message;
    if (done.ok) $('note').value = '';
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
    if (reading !== asked) {  // else what is chosen stays
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
    $('study-record').disabled = true;
    const image = shot.image;
    const done = await post(`study/${stage}`, {
        image: image.id, frame: shot.frame, roi: shot.box, labels, note: $('study-note').value,
        answer: stage === 'after' ? panes[0].answer.answer : null,
    });
    if (!done.ok) {
        $('studied').className = 'alert';
        $('studied').textContent = done.message;
        $('study-record').disabled = false;
        return;
    }
    image.study = done.study;
    document.dispatchEvent(new Event('read'));
    if (shot.image !== image) return;
    panes.forEach(showResult);
    panes.forEach(refresh);
    if (done.study.stage === 'done') say(session.about.run ? 'Recorded. N opens the next row.' : 'Recorded. Open the next image.');
});

document.addEventListener('answered', showJudge);
