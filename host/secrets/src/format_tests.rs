//! Every byte of the key file, and what is read of files that nobody wrote so.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The file of the document, with keys whose bytes are all 1 and all 2. It lies on disks: to change it is to change the format.
const GOLDEN: &str = "\
vouch-secret-keys 1
key 05c00077284b129e 0101010101010101010101010101010101010101010101010101010101010101
key 1a7544392e6de159 0202020202020202020202020202020202020202020202020202020202020202
sum e52da9b1e454cec3
";

fn keys(bytes: impl IntoIterator<Item = u8>) -> SecretKeys {
    SecretKeys::of(bytes.into_iter().map(|byte| SecretKey::filled(|key| key.fill(byte))).collect()).unwrap()
}

fn damage(bytes: &[u8]) -> KeyFileDamage {
    SecretKeys::of_file(bytes).unwrap_err()
}

/// These bytes with the sum that they are to have.
fn summed(before: &str) -> Vec<u8> {
    [before.as_bytes(), &sum_line(before.as_bytes())].concat()
}

#[test]
fn a_key_file_has_the_bytes_of_the_document() {
    let written = keys([1, 2]).to_file();
    let text = std::str::from_utf8(&written).unwrap();
    assert_eq!(text, GOLDEN);
    assert_eq!(SecretKeys::of_file(GOLDEN.as_bytes()).unwrap(), keys([1, 2]));
    assert!(include_str!("../docs/key-file.md").contains(GOLDEN), "the document shows this file");
}

#[test]
fn a_file_of_the_most_keys_is_read_and_as_long_as_a_file_may_be() {
    let most = keys(0..SECRET_KEYS_MAX as u8);
    let written = most.to_file();
    assert_eq!((written.len(), written.capacity()), (FILE_LEN_MAX, FILE_LEN_MAX), "it did not move while it grew");
    assert_eq!(SecretKeys::of_file(&written).unwrap(), most);
    let line = "key 0123456789abcdef ".to_owned() + &"0".repeat(64) + "\n";
    let more = "vouch-secret-keys 1\n".to_owned() + &line.repeat(SECRET_KEYS_MAX + 1);
    assert_eq!(damage(&summed(&more)), KeyFileDamage::Count);
}

#[test]
fn every_changed_byte_and_every_cut_is_found() {
    let file = keys([1, 2]).to_file();
    for at in 0..file.len() {
        for flip in 1..=255 {
            let mut changed = file.to_vec();
            changed[at] ^= flip;
            assert!(SecretKeys::of_file(&changed).is_err(), "byte {at} with {flip}");
        }
        assert!(SecretKeys::of_file(&file[..at]).is_err(), "cut at {at}");
        assert!(SecretKeys::of_file(&file[at + 1..]).is_err(), "without the first {}", at + 1);
    }
    for more in ["\n", "#", "\0"] {
        assert_eq!(damage(&[&file[..], more.as_bytes()].concat()), KeyFileDamage::Sum);
    }
}

#[test]
fn lines_that_went_or_changed_places_are_found() {
    let file = keys([1, 2]).to_file();
    let lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
    let [head, one, two, sum] = lines[..] else { panic!("{} lines", lines.len()) };
    for changed in
        [&[head, two, one, sum][..], &[head, one, sum], &[head, two, sum], &[head, one, two], &[one, two, sum]]
    {
        assert!(SecretKeys::of_file(&changed.concat()).is_err());
    }
}

#[test]
fn what_is_wrong_is_said_in_words_that_repeat_nothing_of_it() {
    let head = "vouch-secret-keys 1\n";
    let key = |id: &str, digits: &str| format!("{head}key {id} {digits}\n");
    let digits = "01".repeat(32);
    let id = keys([1]).sealing().to_string();
    assert!(SecretKeys::of_file(&summed(&key(&id, &digits))).is_ok());
    let cases = [
        (b"".to_vec(), KeyFileDamage::Empty),
        (b"-----BEGIN PRIVATE KEY-----\n".to_vec(), KeyFileDamage::Beginning),
        (summed("vouch-secret-keys 2\n"), KeyFileDamage::Version),
        (head.into(), KeyFileDamage::Sum),
        (summed(head), KeyFileDamage::Count),
        // Right sums, and a wrong id, capital letters, a letter that is no digit, or a key that is too short.
        (summed(&key("0123456789abcdef", &digits)), KeyFileDamage::Line(2)),
        (summed(&key(&id, &"0B".repeat(32))), KeyFileDamage::Line(2)),
        (summed(&key(&id, &"0g".repeat(32))), KeyFileDamage::Line(2)),
        (summed(&key(&id, &digits[2..])), KeyFileDamage::Line(2)),
        (summed(&format!("{}{}", key(&id, &digits), "x".repeat(20))), KeyFileDamage::Line(3)),
        (summed(&format!("{}key {id} {digits}\n", key(&id, &digits))), KeyFileDamage::Count),
    ];
    for (file, expected) in cases {
        let found = damage(&file);
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(&file));
        assert!(!found.to_string().contains(&digits[..8]), "{found}");
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(bytes in proptest::collection::btree_set(any::<u8>(), 1..=SECRET_KEYS_MAX)) {
        let keys = keys(bytes);
        prop_assert_eq!(SecretKeys::of_file(&keys.to_file()).unwrap(), keys);
    }

    #[test]
    fn what_is_read_is_written_to_the_same_bytes_and_hostile_bytes_never_panic(
        bytes in vec(any::<u8>(), 0..300),
        lines in "(key [0-9a-f]{16} [0-9a-f]{64}\n|[ -~]{0,90}\n){0,3}",
    ) {
        prop_assert!(SecretKeys::of_file(&bytes).is_err());
        let file = summed(&format!("vouch-secret-keys 1\n{lines}"));
        if let Ok(keys) = SecretKeys::of_file(&file) {
            prop_assert_eq!(&keys.to_file()[..], &file[..]);
        }
    }
}
