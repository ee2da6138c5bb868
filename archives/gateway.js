// What nginx alone cannot: a keyed hash of the study id, tokens that change without a reload, and
// one more try for a request that a renewal of TorchServe's token overtook. Files are small, local
// and read at each use (tens of microseconds), so a change of one counts from the next request on.

import crypto from 'crypto';
import fs from 'fs';

const PAUSE_MS = 20;
const PATIENCE_MS = 3000; // the gateway writes a renewed token within a fraction of a second

// The name of the client whose token this is, '' for nobody's. Digests are compared, not tokens:
// how long that takes tells nothing about a token of 256 random bits.
function client(r) {
    const given = /^Bearer ([\x21-\x7e]+)$/i.exec(r.headersIn.Authorization || '');
    if (!given) {
        return '';
    }
    const digest = crypto.createHash('sha256').update(given[1]).digest('hex');
    const clients = JSON.parse(fs.readFileSync(r.variables.clients_file, 'utf8'));
    return Object.keys(clients).find(name => clients[name] === digest) || '';
}

// HMAC-SHA256 of the study id, '' where the request names none.
function study(r) {
    const id = r.headersIn['X-Study-Id'];
    if (!id) {
        return '';
    }
    const key = fs.readFileSync(r.variables.key_file);
    if (key.length !== 32) { // anybody could undo a hash of a known key
        throw new Error('the key is damaged');
    }
    return crypto.createHmac('sha256', key).update(id).digest('hex');
}

// What the node's TorchServe wants to see now.
function bearer(r) {
    try {
        return 'Bearer ' + fs.readFileSync(r.variables.token_file, 'utf8');
    } catch (absent) { // a node that was never reached
        return '';
    }
}

// After a 400: TorchServe refuses a token in these words only. Where a renewal has just voided the
// one that was sent, the new one is on its way.
async function again(r) {
    if (!r.variables.upstream_http_x_sonode_code) {
        for (let waited = 0; waited < PATIENCE_MS; waited += PAUSE_MS) {
            if (bearer(r) !== r.variables.bearer) {
                break;
            }
            await new Promise(resolve => setTimeout(resolve, PAUSE_MS));
        }
    }
    r.internalRedirect('@second');
}

// Answers at once; what is mirrored goes on behind it.
function accepted(r) {
    r.return(204);
}

export default { client, study, bearer, again, accepted };
