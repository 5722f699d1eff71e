// Three real broker processes that are one cluster, made as an operator does it, and port mappings in front of them.
'use strict';

const { execFile } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const { promisify } = require('node:util');
const { Broker, binary, temporaryFolder, waitUntil } = require('./broker');

const SETTLES_WITHIN_MS = 30_000;
const ESTABLISHED = '01';
const given = new Set();

/** Below those ports that the system gives to whoever asks for any: nobody gets the port of a node that is down. */
async function freeAddress() {
  for (;;) {
    const port = 15_000 + Math.floor(Math.random() * 17_000);
    const isFree = await new Promise(resolve => {
      const server = net.createServer();
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (isFree && !given.has(port)) {
      given.add(port);
      return `127.0.0.1:${port}`;
    }
  }
}

const portOf = address => Number(address.slice(address.lastIndexOf(':') + 1));

/** What stands between clients and a node whose own port they do not reach: another port, which leads there. */
class PortMapping {
  constructor(target) {
    this.behind = portOf(target);
    this.own = new Set();
    this.open = new Set();
    this.carried = 0;
  }

  async start() {
    this.server = net.createServer(client => {
      const node = net.connect(this.behind, '127.0.0.1', () => {
        this.own.add(node.localPort);
        this.carried++;
      });
      for (const [ one, other ] of [[ client, node ], [ node, client ]]) {
        this.open.add(one);
        one.on('error', () => {}).on('close', () => {
          this.open.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
    await new Promise(resolve => this.server.listen(0, '127.0.0.1', resolve));
    this.address = `127.0.0.1:${this.server.address().port}`;
    return this;
  }

  /** Ports of clients that found the way to the node's own port, past this. */
  past() {
    const ports = [];
    for (const table of [ '/proc/net/tcp', '/proc/net/tcp6' ].filter(each => fs.existsSync(each))) {
      for (const line of fs.readFileSync(table, 'utf8').split('\n')) {
        const [ , local, remote, state ] = line.trim().split(/\s+/);
        const port = address => parseInt(address.slice(address.lastIndexOf(':') + 1), 16);
        if (state === ESTABLISHED && port(remote) === this.behind && !this.own.has(port(local))) ports.push(port(local));
      }
    }
    return ports;
  }

  close() {
    this.server.close();
    for (const each of this.open) each.destroy();
  }
}

class Node extends Broker {
  static async make(id, folder, mapped) {
    const node = new Node(path.join(folder, `node-${id}`));
    node.id = id;
    node.grpc = await freeAddress();
    node.http = await freeAddress();
    node.peer = await freeAddress();
    node.mapping = mapped ? await new PortMapping(node.grpc).start() : undefined;
    // Where clients reach it: itself, unless there is a port mapping.
    node.access = mapped ? node.mapping.address : node.grpc;
    return node;
  }

  launch(...more) {
    return super.launch(
      '--peer-addr', this.peer, '--peer-insecure', '--grpc-advertise', this.access,
      // Small, so that many clusters fit on a disk, however full that is.
      '--segment-size', '4MiB', '--disk-high-water', '99', ...more);
  }

  /** `/v1/cluster` as this node tells it; nothing where it does not answer. */
  async status() {
    try {
      return this.isRunning() ? await this.call('GET', '/v1/cluster') : undefined;
    } catch {
      return undefined;
    }
  }

  toString() {
    return `node ${this.id}`;
  }
}

class Cluster {
  /** Nodes 1 to 3; `mapped`: clients reach each of them only through another port than its own. */
  static async start(mapped = false) {
    const cluster = new Cluster();
    const folder = temporaryFolder('vouch-node-cluster-');
    cluster.nodes = [];
    for (const id of [ 1, 2, 3 ]) cluster.nodes.push(await Node.make(id, folder, mapped));
    const [ first, ...others ] = cluster.nodes;
    await first.start();
    for (const node of others) {
      const token = path.join(folder, `node-${node.id}.token`);
      await promisify(execFile)(binary(), [ 'cluster', 'add', '--token-file', token, '--http', first.http ]);
      await node.launch('--join', first.peer, '--token-file', token);
    }
    await waitUntil(async () => {
      for (const node of cluster.nodes) {
        if ((await node.status())?.voters.length !== 3 || !await node.ready()) return false;
      }
      return true;
    }, 'all vote', SETTLES_WITHIN_MS);
    return cluster;
  }

  /** The node that says of itself that it leads, of the latest term that anybody knows; or nothing. */
  async leads() {
    const told = [];
    for (const node of this.nodes) told.push({ node, status: await node.status() });
    const latest = Math.max(...told.map(({ status }) => status?.term ?? 0));
    return told.find(({ node, status }) => status?.term === latest && status.leader === node.id)?.node;
  }

  /** Whoever leads and is not `other`; waits for it. */
  leader(other) {
    return waitUntil(async () => {
      const leader = await this.leads();
      return leader !== other && leader;
    }, `a node leads${other ? ` that is not ${other}` : ''}`, SETTLES_WITHIN_MS);
  }

  async followers() {
    const leader = await this.leader();
    return this.nodes.filter(node => node !== leader);
  }

  /** Waits until all nodes follow the one that leads, closely. */
  caughtUp() {
    return waitUntil(async () => {
      const leader = await this.leads();
      const status = await leader?.status();
      return status && status.nodes.every(node => node.id === leader.id || (node.heard && (node.lag_bytes ?? Infinity) < 1 << 20));
    }, 'all nodes follow', SETTLES_WITHIN_MS);
  }

  log() {
    return this.nodes.map(node => `----- ${node} -----\n${node.log()}`).join('\n');
  }

  /** Stops all, whoever leads first; resolves to what went wrong. */
  async stop() {
    const leader = await this.leads();
    const faults = [];
    for (const node of [ ...this.nodes ].sort((one, other) => (other === leader) - (one === leader))) {
      if (node.isRunning()) {
        const status = await node.stop();
        if (status !== 0) faults.push(`${node} ended with status ${status} after SIGTERM`);
      }
      if (fs.readFileSync(node.output, 'utf8').includes('panicked at')) faults.push(`${node} panicked`);
      node.mapping?.close();
    }
    return faults;
  }
}

module.exports = { Cluster };
