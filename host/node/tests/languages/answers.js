// Commits every transaction and acknowledges every message; with `count` in the config it counts each under its delivery key.
import { config } from 'vouch:plugin/host@0.1.0';
import { add } from 'vouch:plugin/state@0.1.0';

export const checkback = {
  check() {
    return { tag: 'commit' };
  },
};

export const consumer = {
  consume(item) {
    if (config('count') !== undefined) add(item.deliveryKey, 1n);
    return { tag: 'ack' };
  },
};
