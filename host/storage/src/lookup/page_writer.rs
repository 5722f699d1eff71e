//! Writing a file page by page.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::page::{CONTENT_LEN, PAGE_LEN, checksum};
use super::section::{Item, Section};

/// Writes a file page by page; the first page comes last, when it is known what is in the others.
pub(super) struct PageWriter {
    file: BufWriter<File>,
    part: u64,
    next_page: u64,
    content: Vec<u8>,
}

impl PageWriter {
    /// Writes into this file, which is empty.
    pub(super) fn new(file: File, part: u64) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(64 * PAGE_LEN, file);
        // Its checksum is wrong: a file that was left here is none.
        file.write_all(&[0; PAGE_LEN])?;
        Ok(Self { file, part, next_page: 1, content: Vec::with_capacity(CONTENT_LEN) })
    }

    /// The bytes of a page with its checksum.
    fn page(part: u64, number: u64, mut content: Vec<u8>) -> Vec<u8> {
        content.resize(CONTENT_LEN, 0);
        let checksum = checksum(part, number, &content);
        content.extend_from_slice(&checksum.to_le_bytes());
        content
    }

    /// Writes what was gathered as a page, if it is anything. The next item begins another.
    fn flush(&mut self) -> io::Result<()> {
        if !self.content.is_empty() {
            let page = Self::page(self.part, self.next_page, std::mem::take(&mut self.content));
            self.file.write_all(&page)?;
            self.next_page += 1;
            self.content.reserve(CONTENT_LEN);
        }
        Ok(())
    }

    /// Writes the items of a section; it begins with a page of its own.
    pub(super) fn section<T: Item>(&mut self, items: impl IntoIterator<Item = T>) -> io::Result<Section<T>> {
        let (first_page, mut count) = (self.next_page, 0);
        for item in items {
            if self.content.len() + T::LEN > CONTENT_LEN {
                self.flush()?;
            }
            item.write(&mut self.content);
            count += 1;
        }
        self.flush()?;
        Ok(Section::new(first_page, count))
    }

    /// Pages until now, the first included.
    pub(super) fn pages(&self) -> u64 {
        self.next_page
    }

    /// Writes the first page. Not synced: what a power cut takes of it is found by the checksums, and made again.
    pub(super) fn finish(self, first: Vec<u8>) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.write_all_at(&Self::page(self.part, 0, first), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::LookupFault;
    use super::super::page::Pages;
    use super::super::section::{Cursor, SearchWindow, u64_at};
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Number(u64);

    impl Item for Number {
        const LEN: usize = 40;
        fn write(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.0.to_le_bytes());
            out.extend_from_slice(&[7; 32]);
        }
        fn read(bytes: &[u8]) -> Self {
            Self(u64_at(bytes, 0))
        }
    }

    fn written(items: u64) -> (tempfile::TempDir, Section<Number>) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = PageWriter::new(File::create(folder.path().join("f")).unwrap(), 9).unwrap();
        writer.section([Number(1)]).unwrap();
        let section = writer.section((0..items).map(|n| Number(n * 10))).unwrap();
        writer.finish(b"first".to_vec()).unwrap();
        (folder, section)
    }

    fn opened(folder: &tempfile::TempDir, part: u64) -> Pages {
        Pages::open(File::open(folder.path().join("f")).unwrap(), part).unwrap()
    }

    #[test]
    fn items_are_found_wherever_they_lie_and_however_one_aims() {
        for items in [0, 1, 101, 102, 103, 1000] {
            let (folder, section) = written(items);
            let pages = opened(&folder, 9);
            assert!(section.fits(pages.count()));
            assert!(items == 0 || !section.fits(pages.count() - 1));
            let mut cursor = Cursor::default();
            for n in 0..items {
                assert_eq!(section.get(&pages, &mut cursor, n).unwrap(), Number(n * 10));
            }
            for target in 0..=items * 10 + 10 {
                let expected = target.div_ceil(10).min(items);
                for aim in [
                    |window: &SearchWindow<Number>| window.middle(),
                    |_: &SearchWindow<Number>| 0,
                    |_: &SearchWindow<Number>| 700,
                ] {
                    let found = section.partition_point(&pages, 0..items, aim, |item| item.0 < target).unwrap();
                    assert_eq!(found, expected);
                }
            }
            let part_of = section.partition_point(&pages, items / 3..items / 2, SearchWindow::middle, |_| true);
            assert_eq!(part_of.unwrap(), items / 2);
        }
    }

    #[test]
    fn a_page_of_another_place_part_or_content_is_damaged() {
        let (folder, _) = written(1000);
        let path = folder.path().join("f");
        let whole = std::fs::read(&path).unwrap();
        let pages = opened(&folder, 9);
        assert_eq!(&pages.read(0).unwrap().content()[..5], b"first");
        assert!(matches!(opened(&folder, 8).read(0), Err(LookupFault::Page(0))));
        assert!(matches!(pages.read(pages.count()), Err(LookupFault::Io(_))));
        assert!(pages.read(u64::MAX).is_err());
        let mut swapped = whole.clone();
        swapped.copy_within(PAGE_LEN..2 * PAGE_LEN, 2 * PAGE_LEN);
        std::fs::write(&path, &swapped).unwrap();
        assert!(opened(&folder, 9).read(1).is_ok() && matches!(opened(&folder, 9).read(2), Err(LookupFault::Page(2))));
        for at in [0, 100, CONTENT_LEN, PAGE_LEN - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            assert!(matches!(opened(&folder, 9).read(0), Err(LookupFault::Page(0))), "byte {at}");
        }
        std::fs::write(&path, &whole[..PAGE_LEN + 1]).unwrap();
        assert!(matches!(Pages::open(File::open(&path).unwrap(), 9), Err(LookupFault::Length(_))));
    }
}
