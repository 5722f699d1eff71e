//! Items of one size in consecutive pages, and how one of them is found without reading all pages.

use std::marker::PhantomData;
use std::ops::Range;

use super::LookupFault;
use super::page::{CONTENT_LEN, LookupPage, Pages};

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
pub(super) struct SearchWindow<T> {
    pub(super) items: Range<u64>,
    pub(super) below: Option<T>,
    pub(super) above: Option<T>,
}

impl<T> SearchWindow<T> {
    /// Where to look so that half of the window goes, however the items are spread.
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

    /// One item out of the page that holds it.
    fn at(page: &LookupPage, item: u64) -> T {
        let place = (item % Self::PER_PAGE) as usize * T::LEN;
        T::read(&page.content()[place..place + T::LEN])
    }

    /// One item. Reads its page unless that is the last one that `cursor` read.
    pub(super) fn get(&self, pages: &Pages, cursor: &mut Cursor, item: u64) -> Result<T, LookupFault> {
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
        mut aim: impl FnMut(&SearchWindow<T>) -> u64,
        before: impl Fn(&T) -> bool,
    ) -> Result<u64, LookupFault> {
        let mut window = SearchWindow { items, below: None, above: None };
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
pub(super) struct Cursor(Option<(u64, LookupPage)>);
