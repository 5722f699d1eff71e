use std::time::Duration;

use vouch_protocol::limits::{INVISIBLE_MAX, RECEIVE_INVISIBLE_LEAST};

use super::*;
use crate::text;

#[test]
fn sizes_and_times_are_written_so_that_they_are_read_back() {
    for (bytes, written) in [
        (0, "0B"),
        (1, "1B"),
        (1023, "1023B"),
        (1 << 10, "1KiB"),
        (64 << 20, "64MiB"),
        (1 << 30, "1GiB"),
        (5 << 40, "5TiB"),
    ] {
        assert_eq!(size(bytes), written);
        assert_eq!(text::bytes(&size(bytes)), Ok(bytes));
    }
    for length in [Duration::from_millis(100), Duration::from_secs(10), Duration::from_secs(12 * 3600)] {
        assert_eq!(text::length(&time(length)), Ok(length));
    }
    assert_eq!(time(Duration::from_secs(12 * 3600)), "12h");
}

#[test]
fn values_are_read_from_both_sides_of_their_bounds() {
    let count = Count(FormBounds::NONE);
    assert_eq!(count.read("1"), Ok(1));
    assert!(count.read("0").is_err() && count.read("-1").is_err() && count.read("x").is_err());
    assert_eq!((YesOrNo.read("true"), YesOrNo.read("false")), (Ok(true), Ok(false)));
    assert!(YesOrNo.read("yes").is_err());
    assert_eq!((Percent.read("1"), Percent.read("99")), (Ok(1), Ok(99)));
    assert!(Percent.read("0").is_err() && Percent.read("100").is_err() && Percent.read("-1").is_err());
    assert!(Address.read("127.0.0.1:0").is_ok() && Address.read("[::1]:8081").is_ok());
    assert!(HostPort.read("broker-1.example:8090").is_ok() && HostPort.read("[::1]:1").is_ok());
    for nowhere in
        ["broker-1", ":8090", "h:0", "h:65536", "h:x", "http://h:1", "a b:1", &format!("{}:1", "h".repeat(254))]
    {
        assert!(HostPort.read(nowhere).unwrap_err().contains("write HOST:PORT"), "{nowhere}");
    }
    assert!(Address.read("localhost:1").is_err() && Address.read("127.0.0.1").is_err());
    assert_eq!(NameList.read(""), Ok(Vec::new()));
    assert_eq!(NameList.read("a.example, b.example").map(|names| names.len()), Ok(2));
    assert!(NameList.read("a.example,").is_err());
    assert_eq!(FolderList.read(""), Ok(Vec::new()));
    assert_eq!(FolderList.read("/a, /b").map(|folders| folders.len()), Ok(2));
    assert!(FolderList.read("/a,").is_err() && FolderList.read("b").is_err());
    assert!(Folder.read("").is_err());
}

#[test]
fn what_is_beyond_a_bound_is_told_with_the_bound() {
    let size = Size(FormBounds::at_least(1 << 20, "the least there is"));
    assert_eq!(size.read("1MiB"), Ok(1 << 20));
    assert_eq!(size.read("1048575"), Err("`1048575` is less than 1MiB, the least there is".to_owned()));
    let time = Time(FormBounds::between((RECEIVE_INVISIBLE_LEAST, "the shortest"), (INVISIBLE_MAX, "the longest")));
    assert_eq!((time.read("1s"), time.read("12h")), (Ok(RECEIVE_INVISIBLE_LEAST), Ok(INVISIBLE_MAX)));
    assert_eq!(time.read("999ms"), Err("`999ms` is less than 1s, the shortest".to_owned()));
    assert_eq!(time.read("12h 1s"), Err("`12h 1s` is more than 12h, the longest".to_owned()));
    assert_eq!(time.about().bounds.map(Option::unwrap), ["1s", "12h"]);
}

#[test]
fn bounds_that_somebody_else_holds_to_are_only_told() {
    let count = Count(FormBounds::told(1, 4));
    assert_eq!((count.read("5"), count.about().bounds.map(Option::unwrap)), (Ok(5), ["1".to_owned(), "4".to_owned()]));
}

#[test]
fn a_word_is_one_of_two() {
    let choice = Choice { placeholder: "WHAT", of: [("one", 1), ("two", 2)] };
    assert_eq!((choice.read("one"), choice.read("two")), (Ok(1), Ok(2)));
    assert_eq!(choice.read("three"), Err("`three` is neither one nor two".to_owned()));
    assert!(choice.read("").is_err());
    assert_eq!((choice.word(2), choice.about().expected), ("two".to_owned(), "\"one\" or \"two\"".to_owned()));
}

#[test]
fn nothing_is_a_value_only_where_a_form_says_so() {
    assert_eq!(OrNone(Size(FormBounds::NONE)).read(""), Ok(None));
    assert_eq!(OrNone(Size(FormBounds::NONE)).read("1KiB"), Ok(Some(1024)));
    assert!(Size(FormBounds::NONE).read("").is_err() && OrNone(Size(FormBounds::NONE)).read("x").is_err());
    let given = IfGiven(Size(FormBounds::NONE));
    assert_eq!((given.take("1KiB", false), given.take("1KiB", true)), (Ok(None), Ok(Some(1024))));
    assert!(IfGiven(Token).about().is_secret && !OrNone(FilePath).about().is_secret);
}
