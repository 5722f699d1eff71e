// What producers were told, and what came to consumers: the one has to fit the other.
'use strict';

/** Of this answer is certain that nothing was stored. */
const REFUSED = '50002';
/** What a call may be told while leaders change: refused, nobody knows, or nothing since the node was killed. */
const EXPECTED = new Set([ REFUSED, '50400', '50401', '50402', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED' ]);
const GRPC = { 1: 'CANCELLED', 4: 'DEADLINE_EXCEEDED', 14: 'UNAVAILABLE' };
/** What a producer does about a half message, and its checker answers in the end. */
const PLANS = [ 'commit', 'rollback', 'silent-commit', 'silent-rollback', 'silent-late' ];

const commits = plan => plan !== 'rollback' && plan !== 'silent-rollback';

/** What the broker answered, as its code; or how the call failed on its way. */
const told = error => (GRPC[error.code] ?? (typeof error.code === 'number' ? `${error.code}` : `${error}`));

class Ledger {
  constructor() {
    this.sends = new Map();
    this.deliveries = [];
    this.errors = new Map();
    this.acknowledged = 0;
  }

  /** `once`: its client tries it once, so what the only answer says is about all of it. */
  send(body, plan, once) {
    const send = { body, plan, once };
    this.sends.set(body, send);
    return send;
  }

  sent(send, messageId) {
    send.acknowledged = true;
    send.messageId = messageId;
    this.acknowledged++;
  }

  failed(send, error) {
    send.failure = told(error);
    this.error('send', error);
  }

  error(what, error) {
    const name = `${what}: ${told(error)}`;
    this.errors.set(name, (this.errors.get(name) ?? 0) + 1);
  }

  delivered(group, message) {
    const delivery = { group, body: message.body.toString(), messageId: message.messageId, attempt: message.deliveryAttempt };
    this.deliveries.push(delivery);
    return delivery;
  }

  of(group) {
    return this.deliveries.filter(each => each.group === group);
  }

  missing(group) {
    const came = new Set(this.of(group).map(each => each.body));
    return [ ...this.sends.values() ].filter(
      each => each.acknowledged && (!each.plan || commits(each.plan)) && !came.has(each.body));
  }

  /** Everything that should not be, in sentences. */
  faults(groups) {
    const faults = [];
    for (const group of groups) {
      const show = send => `${group} got ${JSON.stringify(send)}`;
      for (const each of this.missing(group)) faults.push(`${group} never got ${JSON.stringify(each)}`);
      for (const [ body, all ] of grouped(this.of(group))) {
        const send = this.sends.get(body);
        if (!send) {
          faults.push(`${group} got ${body}, which nobody sent`);
          continue;
        }
        const mayNotCome = send.plan ? !commits(send.plan) : false;
        if (mayNotCome || (send.once && send.failure === REFUSED)) faults.push(`${show(send)}, which nobody may get`);
        const ids = new Set(all.map(each => each.messageId));
        if (send.messageId) ids.add(send.messageId);
        if (ids.size > 1) faults.push(`${show(send)} under several ids: ${[ ...ids ]}`);
        const attempts = all.map(each => each.attempt);
        if (new Set(attempts).size !== attempts.length) faults.push(`${show(send)} more than once in one attempt: ${attempts}`);
        const last = Math.max(...attempts);
        for (const each of all.filter(one => one.acknowledged && one.attempt < last)) {
          faults.push(`${show(send)} in attempt ${last} though attempt ${each.attempt} was acknowledged`);
        }
      }
    }
    for (const [ what, times ] of this.errors) {
      if (!EXPECTED.has(what.slice(what.indexOf(': ') + 2))) faults.push(`an unexpected answer, ${times} times: ${what}`);
    }
    return faults;
  }

  summary(groups) {
    const count = {};
    for (const { plan, once, acknowledged, failure } of this.sends.values()) {
      const name = `${plan ?? (once ? 'plain once' : 'plain')} ${acknowledged ? 'acknowledged' : failure}`;
      count[name] = (count[name] ?? 0) + 1;
    }
    const came = groups.map(group => {
      const mine = this.of(group);
      return `${group}: ${new Set(mine.map(each => each.body)).size}, again ${mine.filter(each => each.attempt > 1).length}`;
    });
    return `sends ${JSON.stringify(count)}, came ${came.join('; ')}, errors ${JSON.stringify(Object.fromEntries(this.errors))}`;
  }
}

function grouped(deliveries) {
  const groups = new Map();
  for (const each of deliveries) groups.set(each.body, [ ...groups.get(each.body) ?? [], each ]);
  return groups;
}

module.exports = { Ledger, PLANS, commits, told };
