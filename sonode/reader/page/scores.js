// The answer to a box, in words. `answered` is sent to the document when what is shown has changed.

import { $, element, options, percent } from './dom.js';
import { render } from './panes.js';
import { blinded, holdsPixels, panes, post, session, shot, titled } from './state.js';

function wanted(pane) {
    if (pane.shot !== shot || !shot.image || !session.settled || blinded()) return null;
    return { source: pane.source, image: shot.image.id, frame: shot.frame, roi: session.settled };
}

// One request at a time for each pane; an answer to what is no longer there is dropped.
export async function refresh(pane) {
    if (pane.busy) return;
    pane.busy = true;
    let sentAgain = false;
    const overtaken = (asked) => JSON.stringify(wanted(pane)) !== JSON.stringify(asked);
    for (let asked; (asked = wanted(pane)) && !pane.answer;) {
        const answer = await post('score', asked);
        if (overtaken(asked)) continue;
        if (answer.code === 'image_forgotten' && !sentAgain && shot.again) {
            sentAgain = true;
            if (await shot.again() || overtaken(asked)) continue;
        }
        pane.answer = answer;
        showResult(pane);
        render();
    }
    pane.busy = false;
}

export function showResult(pane) {
    const { answer, result, shot: of } = pane;
    const model = answer?.model;
    const name = model ? `${model.name} ${model.version}` : session.about.sources[pane.source].title;
    const title = of === shot ? name : `${name}, kept beside`;
    pane.caption.textContent = panes.length > 1 ? title : '';
    result.replaceChildren(element('h2', title));
    if (!answer) result.append(element('p', whatIsMissing(of)));
    if (answer && !answer.ok) {
        result.append(element('p', `No score: ${answer.message}`, { class: 'alert' }));
        const again = element('button', 'Try again', { type: 'button' });
        again.addEventListener('click', () => { pane.answer = null; showResult(pane); refresh(pane); });
        result.append(again);
    }
    for (const warning of answer?.warnings ?? []) {
        result.append(element('p', warning.words, { class: 'alert' }));
    }
    for (const [name, score] of Object.entries(answer?.heads ?? {})) {
        result.append(scoreOf(name, score, pane));
    }
    if (model) result.append(element('p', `Box ${answer.roi.join(', ')}`, { class: 'faint' }), engineers(answer));
    showModel();
    showHeads();
    document.dispatchEvent(new Event('answered'));
}

function whatIsMissing(of) {
    if (!of.image) return session.opening ? 'Opening.' : 'No image is open.';
    if (of.box && !holdsPixels(of.box)) return 'The box is empty: each maximum must be larger than its minimum.';
    if (!of.box) return 'Draw a box around the lesion.';
    if (of !== shot) return 'It was kept before it had a score.';
    return blinded() ? 'Hidden until you have judged the image.' : 'Scoring.';
}

function scoreOf(name, score, pane) {
    const part = element('div', '', { class: 'score', 'data-head': name });
    const line = element('p', `${titled(name)} `), share = element('span', `${percent(score.probability)},`, { class: 'share' });
    line.append(share, ' called ', element('span', score.label, { class: 'label' }));
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
    part.append(bar, element('p', meaning(name, score, pane), { class: 'faint' }));
    const set = score.label_set;
    if (score.uncertain) {
        part.append(element('p', `Uncertain: it may also be ${
            set?.labels.filter((label) => label !== score.label).join(' or ') || 'another label'}.`, { class: 'alert' }));
    }
    if (set) {
        const patients = Object.entries(set.patients).map(([label, count]) => `${count} ${label}`).join(', ');
        part.append(element('p', `In ${Math.round(100 * set.level)} of 100 such patients the true label is among: ${
            set.labels.join(', ') || 'none, the image fits no label'} (found on patients: ${patients}).`, { class: 'faint' }));
    } else if (score.uncertain == null) {
        part.append(element('p', 'This model does not say when it is uncertain.', { class: 'faint' }));
    }
    return part;
}

function meaning(name, score, pane) {
    const positive = cardOf(pane)?.labels[name]?.[1]
        ?? Object.keys(score.label_set?.patients ?? {})[1] ?? 'positive';
    const words = [score.threshold == null
        ? 'The most probable label.' : `Called ${positive} above ${percent(score.threshold)}, the mark on the bar.`];
    if (score.given) words.push(`It counts only if the lesion is ${score.given}.`);
    for (const [label, share] of Object.entries(score.distribution ?? {})) words.push(`${label} ${percent(share)}.`);
    if (score.spread != null) words.push(`The model's networks differ by ${percent(score.spread)} (SD).`);
    return words.join(' ');
}

function engineers({ model, layers }) {
    const part = element('details');
    const maps = Object.values(layers).map((map) => `Grad-CAM of ${map.target}, maximum ${map.max.toPrecision(2)}`);
    part.append(element('summary', 'For the engineer'), element('p', [
        `${model.name} ${model.version}`, `sha256 ${model.sha256}`, model.engine, ...maps].join('; '), { class: 'faint' }));
    return part;
}

export function showModel() {
    const pane = panes[0], facts = cardOf(pane), model = pane.answer?.model ?? facts?.model;
    $('show-card').disabled = !facts;
    if (!model) {
        $('model').textContent = `${session.about.sources[pane.source].title}. Which model answers is known with the first score.`;
        return;
    }
    const known = facts ? `Trained on ${facts.trained_on}. Tested on: ${facts.tested_on}.`
        : 'Its model card is not here: start the reader with its archive, too.';
    $('model').textContent = `${model.name} ${model.version} (${model.sha256.slice(0, 12)}). ${known}`;
}

// The facts of the archive that answered, if the reader has it.
export function cardOf(pane) {
    const { sources } = session.about;
    const digest = pane.answer?.model?.sha256 ?? sources[pane.source].model?.sha256;
    return sources.find((source) => digest && source.model?.sha256 === digest);
}

export function showHeads() {
    const layers = panes[0].answer?.layers;
    if (layers) options($('head'), [...Object.keys(layers).map((head) => [head, titled(head)]), ['none', 'none']]);
    $('map').hidden = !layers;
}
