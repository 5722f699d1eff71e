//! Pages: lookup files are written and read by them. Each has a checksum that is compared whenever it is read, so that
//! nothing damaged is served, whenever the damage came about.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::marker::PhantomData;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::Fault;

/// Bytes of a page.
pub(super) const PAGE_LEN: usize = 4096;
/// Bytes of a page in front of its checksum.
pub(super) const CONTENT_LEN: usize = PAGE_LEN - 4;

/// Covers the place of a page, too: one of another file or another place is as wrong as a flipped bit.
fn checksum(part: u64, page: u64, content: &[u8]) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&part.to_le_bytes()), &page.to_le_bytes());
    crc32c::crc32c_append(place, content)
}

/// The contents of a page, which are as they were written.
#[derive(Clone)]
pub(super) struct Page([u8; PAGE_LEN]);

impl Page {
    pub(super) fn content(&self) -> &[u8] {
        &self.0[..CONTENT_LEN]
    }
}

/// The pages of a file. They are read and not mapped: a sector that cannot be read is then an error, and the file is made
/// again, where a mapping would end the process.
pub(super) struct Pages {
    file: File,
    part: u64,
    count: u64,
}

impl Pages {
    /// The pages of the file for this part.
    pub(super) fn open(file: File, part: u64) -> Result<Self, Fault> {
        let len = file.metadata()?.len();
        if len == 0 || !len.is_multiple_of(PAGE_LEN as u64) {
            return Err(Fault::Length(len));
        }
        Ok(Self { file, part, count: len / PAGE_LEN as u64 })
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn read(&self, page: u64) -> Result<Page, Fault> {
        let mut bytes = [0; PAGE_LEN];
        // Beyond the end it is an error, too: counts of pages come from the file.
        let at = page.checked_mul(PAGE_LEN as u64).ok_or(Fault::Page(page))?;
        self.file.read_exact_at(&mut bytes, at)?;
        let (content, found) = bytes.split_at(CONTENT_LEN);
        if checksum(self.part, page, content).to_le_bytes() != found {
            return Err(Fault::Page(page));
        }
        Ok(Page(bytes))
    }
}

/// Something of a fixed size; pages hold as many as fit, none lies across two of them.
pub(super) trait Item: Copy {
    /// Bytes of one.
    const LEN: usize;
    /// Appends [`Self::LEN`] bytes.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads [`Self::LEN`] bytes.
    fn read(bytes: &[u8]) -> Self;
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Items of one kind in consecutive pages.
#[derive(Debug)]
pub(super) struct Section<T> {
    pub(super) first_page: u64,
    pub(super) items: u64,
    kind: PhantomData<T>,
}

impl<T> Clone for Section<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Section<T> {}

/// What is known while an item is looked for: it lies in `items`, behind `below` and at or before `above`.
pub(super) struct Window<T> {
    pub(super) items: Range<u64>,
    pub(super) below: Option<T>,
    pub(super) above: Option<T>,
}

impl<T> Window<T> {
    pub(super) fn middle(&self) -> u64 {
        self.items.start + (self.items.end - self.items.start) / 2
    }
}

impl<T: Item> Section<T> {
    const PER_PAGE: u64 = (CONTENT_LEN / T::LEN) as u64;

    pub(super) fn new(first_page: u64, items: u64) -> Self {
        Self { first_page, items, kind: PhantomData }
    }

    /// Whether it lies inside a file of so many pages.
    pub(super) fn fits(&self, pages: u64) -> bool {
        self.first_page.checked_add(self.items.div_ceil(Self::PER_PAGE)).is_some_and(|end| end <= pages)
    }

    fn at(page: &Page, item: u64) -> T {
        let place = (item % Self::PER_PAGE) as usize * T::LEN;
        T::read(&page.content()[place..place + T::LEN])
    }

    /// One item. Reads its page unless that is the last one that `cursor` read.
    pub(super) fn get(&self, pages: &Pages, cursor: &mut Cursor, item: u64) -> Result<T, Fault> {
        let number = self.first_page + item / Self::PER_PAGE;
        match &cursor.0 {
            Some((read, page)) if *read == number => Ok(Self::at(page, item)),
            _ => {
                let page = pages.read(number)?;
                let found = Self::at(&page, item);
                cursor.0 = Some((number, page));
                Ok(found)
            }
        }
    }

    /// The first of some items that is not `before` what is looked for. `aim` says where to look next, inside the window.
    pub(super) fn partition_point(
        &self,
        pages: &Pages,
        items: Range<u64>,
        mut aim: impl FnMut(&Window<T>) -> u64,
        before: impl Fn(&T) -> bool,
    ) -> Result<u64, Fault> {
        let mut window = Window { items, below: None, above: None };
        while !window.items.is_empty() {
            let aimed = aim(&window).clamp(window.items.start, window.items.end - 1);
            let page_first = aimed - aimed % Self::PER_PAGE;
            let page = pages.read(self.first_page + aimed / Self::PER_PAGE)?;
            let here = page_first.max(window.items.start)..(page_first + Self::PER_PAGE).min(window.items.end);
            let (first, last) = (Self::at(&page, here.start), Self::at(&page, here.end - 1));
            if !before(&first) {
                (window.items.end, window.above) = (here.start, Some(first));
            } else if before(&last) {
                (window.items.start, window.below) = (here.end, Some(last));
            } else {
                let inside: Vec<u64> = here.collect();
                return Ok(inside[0] + inside.partition_point(|item| before(&Self::at(&page, *item))) as u64);
            }
        }
        Ok(window.items.start)
    }
}

/// The last page that was read of a section.
#[derive(Default)]
pub(super) struct Cursor(Option<(u64, Page)>);

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

    fn page(part: u64, number: u64, mut content: Vec<u8>) -> Vec<u8> {
        content.resize(CONTENT_LEN, 0);
        let checksum = checksum(part, number, &content);
        content.extend_from_slice(&checksum.to_le_bytes());
        content
    }

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
                for aim in [|window: &Window<Number>| window.middle(), |_: &Window<Number>| 0, |_: &Window<Number>| 700]
                {
                    let found = section.partition_point(&pages, 0..items, aim, |item| item.0 < target).unwrap();
                    assert_eq!(found, expected);
                }
            }
            let part_of = section.partition_point(&pages, items / 3..items / 2, Window::middle, |_| true);
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
        assert!(matches!(opened(&folder, 8).read(0), Err(Fault::Page(0))));
        assert!(matches!(pages.read(pages.count()), Err(Fault::Io(_))));
        assert!(pages.read(u64::MAX).is_err());
        let mut swapped = whole.clone();
        swapped.copy_within(PAGE_LEN..2 * PAGE_LEN, 2 * PAGE_LEN);
        std::fs::write(&path, &swapped).unwrap();
        assert!(opened(&folder, 9).read(1).is_ok() && matches!(opened(&folder, 9).read(2), Err(Fault::Page(2))));
        for at in [0, 100, CONTENT_LEN, PAGE_LEN - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            assert!(matches!(opened(&folder, 9).read(0), Err(Fault::Page(0))), "byte {at}");
        }
        std::fs::write(&path, &whole[..PAGE_LEN + 1]).unwrap();
        assert!(matches!(Pages::open(File::open(&path).unwrap(), 9), Err(Fault::Length(_))));
    }
}
