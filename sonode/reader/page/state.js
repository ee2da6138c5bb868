// What is looked at, and how the reader's server is asked about it. All coordinates of boxes are
// pixels of the stored frame: half-open, whole numbers.

// An image, its frame, the box, and how the pane shows it. Live panes share this one; a pane that
// was kept beside has its own.
export const shot = { image: null, frame: 0, box: null, view: { x: 0, y: 0, scale: 1 }, again: null };
export const panes = [];
export const session = {
    about: await ask('about'),  // before any other part of the page listens
    settled: null,  // the box that is scored, once it rests
    opening: false,  // an image was asked for, and is not here
};

export async function ask(path, options) {
    try {
        const answer = await fetch(path, options);
        return { ok: answer.ok, status: answer.status, ...await answer.json() };
    } catch {
        return { ok: false, code: 'gone', message: 'the reader does not answer; is it still running?' };
    }
}

export const post = (path, body) => ask(path, { method: 'POST', body: JSON.stringify(body) });

// A head's name as a person would say it.
export const titled = (head) => session.about.titles[head] ?? head.replaceAll('_', ' ');

// Of a study: whether the scores of this image are still hidden.
export const blinded = () => session.about.study && shot.image?.study?.stage === 'before';

export const holdsPixels = (box) => box && box[2] > box[0] && box[3] > box[1];
