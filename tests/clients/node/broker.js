// A real broker process in a folder of its own, and its HTTP API.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const REPOSITORY = path.resolve(__dirname, '../../..');
const START_DEADLINE_MS = 30_000;
const STOP_DEADLINE_MS = 15_000;

function binary() {
  const target = process.env.CARGO_TARGET_DIR || path.join(REPOSITORY, 'target');
  return process.env.VOUCH_BIN || path.join(target, 'release', 'vouch');
}

function pluginDist() {
  return process.env.VOUCH_PLUGIN_DIST || path.join(REPOSITORY, 'plugins', 'dist');
}

const folders = [];
const running = new Set();

/** A new folder, which goes with this process: what is worth reading of it a failed test has told. */
function temporaryFolder(prefix) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), prefix));
  folders.push(folder);
  return folder;
}

process.on('exit', () => {
  // A broker that a failed test left running would go on writing there.
  for (const each of running) each.kill('SIGKILL');
  for (const each of folders) fs.rmSync(each, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
});
// By themselves these end a process without a word to those who listen for its end; the runner stops a suite so.
for (const [ signal, number ] of [[ 'SIGHUP', 1 ], [ 'SIGINT', 2 ], [ 'SIGTERM', 15 ]]) {
  process.on(signal, () => process.exit(128 + number));
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

/** Polls until `condition` resolves to something true, and returns that; throws with `what` at the deadline. */
async function waitUntil(condition, what, deadlineMs = 20_000) {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`after ${deadlineMs} ms still not so: ${what}`);
    await sleep(50);
  }
}

class Broker {
  constructor(folder = temporaryFolder('vouch-node-')) {
    this.folder = folder;
    fs.mkdirSync(folder, { recursive: true });
    this.dataDir = path.join(this.folder, 'data');
    this.output = path.join(this.folder, 'vouch.log');
    this.grpc = '127.0.0.1:0';
    this.http = '127.0.0.1:0';
  }

  async start(...more) {
    await this.launch(...more);
    await waitUntil(() => this.ready(), 'the broker is ready', START_DEADLINE_MS);
    return this;
  }

  /** Starts the process and waits until it has its ports. */
  async launch(...more) {
    const out = fs.openSync(this.output, 'a');
    this.process = spawn(binary(), [
      'serve', '--data-dir', this.dataDir, '--grpc-addr', this.grpc, '--http-addr', this.http,
      // Leases of seconds, so that tests need not wait for one of ten.
      '--receive-invisible-min', '1s',
      // Small, so that many fit on a disk: by itself a node takes 64 MiB ahead of its log, and 256 MiB for snapshots.
      '--zero-ahead', '1MiB', '--snapshot-every', '16MiB', ...more,
    ], { stdio: [ 'ignore', out, out ] });
    fs.closeSync(out);
    const child = this.process;
    running.add(child);
    child.once('exit', () => running.delete(child));
    this.ended = new Promise((resolve, reject) => {
      this.process.once('exit', (code, signal) => resolve({ code, signal }));
      this.process.once('error', reject);
    });
    this.ended.catch(() => {}); // reported by whoever waits for it
    const endpoints = await waitUntil(() => this.#endpoints(), 'the broker wrote endpoints.json', START_DEADLINE_MS);
    this.grpc = endpoints.grpc;
    this.http = endpoints.http;
  }

  async ready() {
    try {
      return (await fetch(`http://${this.http}/readyz`)).ok;
    } catch {
      return false;
    }
  }

  isRunning() {
    return this.process !== undefined && this.process.exitCode === null && this.process.signalCode === null;
  }

  #endpoints() {
    if (this.process.exitCode !== null) {
      throw new Error(`vouch serve ended with status ${this.process.exitCode}:\n${this.log()}`);
    }
    try {
      const endpoints = JSON.parse(fs.readFileSync(path.join(this.dataDir, 'endpoints.json'), 'utf8'));
      // A file that a killed process left behind names that process, not this one.
      return endpoints.pid === this.process.pid ? endpoints : undefined;
    } catch {
      return undefined;
    }
  }

  /** SIGTERM; resolves to the exit status. */
  async stop() {
    this.process.kill('SIGTERM');
    const timer = setTimeout(() => this.process.kill('SIGKILL'), STOP_DEADLINE_MS);
    const { code } = await this.ended;
    clearTimeout(timer);
    return code;
  }

  /** kill -9. */
  async kill() {
    this.process.kill('SIGKILL');
    await this.ended;
  }

  log() {
    return fs.existsSync(this.output) ? fs.readFileSync(this.output, 'utf8').slice(-10_000) : '';
  }

  async call(method, route, body, contentType = 'application/json') {
    const raw = body === undefined || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    const answer = await fetch(`http://${this.http}${route}`, {
      method,
      body: method === 'POST' || method === 'PUT' ? raw ?? '{}' : undefined,
      headers: method === 'GET' ? {} : { 'content-type': contentType },
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${route}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  createTopic(name, type = 'normal', more = {}) {
    return this.call('PUT', `/v1/topics/${encodeURIComponent(name)}`, { type, queues: 8, ...more });
  }

  createTransactionTopic(name, check = {}) {
    const transaction = { immunity: '1s', interval: '1s', max_checks: 15, ...check };
    return this.createTopic(name, 'transaction', { transaction });
  }

  createGroup(name, settings) {
    return this.call('PUT', `/v1/groups/${encodeURIComponent(name)}`, settings);
  }

  transaction(id) {
    return this.call('GET', `/v1/transactions/${encodeURIComponent(id)}`);
  }
}

module.exports = { Broker, binary, pluginDist, sleep, temporaryFolder, waitUntil };
