// The page's beginning: what the reader's server has, and the parts that show it.

import { showBox } from './box.js';
import { $, say } from './dom.js';
import { start as startImages } from './images.js';
import './judging.js';
import { start as startRows } from './rows.js';
import { session } from './state.js';

const { about } = session;
if (about.ok) {
    startImages();
    showBox();
    $('legend').src = `data:image/png;base64,${about.legend}`;
    $('who').textContent = about.who;
    if (about.run) startRows();
} else {
    say(about.message, true);
}
// Until here a file chosen, or a key pressed, would have been lost.
document.querySelector('main').inert = false;
