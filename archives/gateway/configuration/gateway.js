// What nginx alone cannot: a keyed hash of the study id, tokens that change without a reload, one
// more try for a request that a renewal of TorchServe's token overtook, and refusals in one form.
// Files are small, local and read at each use (tens of microseconds), so a change of one counts from
// the next request on.

import crypto from 'crypto';
import fs from 'fs';

const PAUSE_MS = 20;
const PATIENCE_MS = 1000; // the gateway writes a renewed token within a fraction of a second
const SUPERVISOR_MS = 300; // then its token is looked for at the node itself
const UNKNOWN = '?'; // no client and no hash is called so: the file that says it cannot be read

// The name of the client whose token this is, '' for nobody's, UNKNOWN where the list cannot be read
// (too many open files, a damaged list: the same that `secrets.clients` refuses). Digests are compared, not tokens: how long that takes tells
// nothing about a token of 256 random bits.
function client(r) {
    const given = /^Bearer ([\x21-\x7e]+)$/i.exec(r.headersIn.Authorization || '');
    if (!given) {
        return '';
    }
    const digest = crypto.createHash('sha256').update(given[1]).digest('hex');
    let clients;
    try {
        clients = JSON.parse(fs.readFileSync(r.variables.clients_file, 'utf8'));
        if (typeof clients !== 'object' || Array.isArray(clients)
            || Object.keys(clients).some(name => typeof clients[name] !== 'string')) {
            return UNKNOWN;
        }
    } catch (fault) {
        return UNKNOWN;
    }
    return Object.keys(clients).find(name => clients[name] === digest) || '';
}

// HMAC-SHA256 of the study id, '' where the request names none, UNKNOWN without a good key: anybody
// could undo the hash of a damaged one. Of its bytes: as text, all that is no UTF-8 would be alike.
function study(r) {
    const id = r.rawVariables.http_x_study_id;
    if (!id || !id.length) {
        return '';
    }
    let key;
    try {
        key = fs.readFileSync(r.variables.key_file);
    } catch (fault) {
        return UNKNOWN;
    }
    if (key.length !== 32) {
        return UNKNOWN;
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

// The same from the node's own key file, which may lie on a mount: for a second try only. It is what
// goes on while the gateway's supervisor is away.
function latest(r) {
    try {
        const keys = JSON.parse(fs.readFileSync(r.variables.keys_file, 'utf8'));
        return 'Bearer ' + keys.inference.key;
    } catch (absent) {
        return bearer(r);
    }
}

// The Open Inference Protocol has another form, also for what no location takes, and for a line that is
// too long, of which nginx makes no URI.
function refusal(r, code, message) {
    const v2 = r.variables.api === 'infer' || /^\S+ \/+v2\//.test(r.variables.request);
    const told = v2 ? { error: `${code}: ${message}` }
        : { code, message, field: null };
    return JSON.stringify(told) + '\n';
}

// What the gateway refuses itself; the status is that of the error.
function refused(r) {
    r.return(200, refusal(r, r.variables.refusal, r.variables.message));
}

// The status of the last node that was asked, 400 or 500.
function status(r) {
    return Number(/\d+$/.exec(r.variables.upstream_status)[0]);
}

// A 400 or 500 goes on to the client. The handler's words come as a header, since nginx has dropped
// the body; TorchServe's own may quote the request, and are not passed on. It has a 500 for a form
// that it cannot take apart, which is the client's fault.
function pass(r) {
    const code = r.variables.upstream_http_x_sonode_code;
    const error = r.variables.upstream_http_x_sonode_error;
    if (code) {
        const body = error ? decodeURIComponent(error) + '\n' : refusal(r, code, 'see the code');
        r.headersOut['X-Sonode-Code'] = code;
        r.headersOut['X-Sonode-Error'] = error || '';
        return r.return(status(r), body);
    }
    const form = /^\s*(multipart\/|application\/x-www-form-urlencoded)/i;
    if (status(r) === 400 || form.test(r.headersIn['Content-Type'] || '')) {
        return r.return(400, refusal(r, 'bad_request', 'the form or request cannot be understood'));
    }
    return r.return(500, refusal(r, 'node_failed', 'TorchServe has failed; see its logs'));
}

// TorchServe refuses a token with a 400 of its own. Where a renewal has just voided the one that was
// sent, the new one is coming, and the request is sent again.
async function judge(r) {
    if (status(r) === 400 && !r.variables.upstream_http_x_sonode_code) {
        for (let waited = 0; waited < PATIENCE_MS; waited += PAUSE_MS) {
            if (bearer(r) !== r.variables.bearer) {
                return r.internalRedirect('@second');
            }
            if (waited >= SUPERVISOR_MS && latest(r) !== r.variables.bearer) {
                return r.internalRedirect('@third');
            }
            await new Promise(resolve => setTimeout(resolve, PAUSE_MS));
        }
    }
    return pass(r);
}

// Of a node's answer goes on what is named here. TorchServe says how long each of its own is; what
// says nothing, or speaks no HTTP, cannot be known to be whole: the connection ends before a client
// gets any of it, and another node is asked.
const NAMED = /^(content-(type|length|encoding)|pragma|cache-control|expires|x-request-id|x-sonode-.+|inference-header-content-length)$/i;

function named(r) {
    if (!r.headersOut['Content-Length']) {
        r.status = 502;
        throw new Error('no answer of TorchServe');
    }
    for (const header in r.headersOut) {
        if (!NAMED.test(header)) {
            delete r.headersOut[header];
        }
    }
}

// Whether the version on trial may answer: its removal takes that back at once, and needs no disk.
function released(r) {
    try {
        fs.accessSync(r.variables.released_file);
        return 'yes';
    } catch (absent) {
        return '';
    }
}

// The whole body is here: ask the version.
function try_out(r) {
    r.internalRedirect('/on_trial');
}

// A version has failed a request while another one is on trial, or is it itself: would the other one
// have failed it, too? The client gets the failure either way, since a study stays on its side.
async function replay(r) {
    const code = r.variables.upstream_http_x_sonode_code;
    const status = Number((r.variables.upstream_status || '').split(/[ ,:]+/).pop()) || 502;
    if (code !== 'busy' && r.variables.other) {
        const reply = await r.subrequest('/other', { method: 'POST' });
        r.variables.replay = String(reply.status);
    }
    const error = r.variables.upstream_http_x_sonode_error;
    if (code) {
        r.headersOut['X-Sonode-Code'] = code;
    }
    const message = 'the version that was asked has failed';
    r.return(status, error ? decodeURIComponent(error) + '\n'
        : refusal(r, code || 'unavailable', message));
}

// Answers at once; what is mirrored goes on behind it.
function accepted(r) {
    r.return(204);
}

export default {
    client, study, bearer, latest, refused, judge, pass, named, released, try_out, replay, accepted,
};
