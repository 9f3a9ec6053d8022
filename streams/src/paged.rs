//! Arrays that grow by pages: growth moves nothing that is there, so that no epoch waits for it, and where nothing is
//! there is no page.

use std::ops::{Index, IndexMut};

/// Places of a page.
const PAGE: usize = 1 << 10;

/// An array of `T` by `u32`; what was never written is blank.
pub struct Paged<T> {
    /// An empty one where nothing was written.
    pages: Vec<Box<[T]>>,
    blank: T,
}

fn split(at: u32) -> (usize, usize) {
    (at as usize / PAGE, at as usize % PAGE)
}

impl<T: Clone> Paged<T> {
    /// All blank.
    pub fn new(blank: T) -> Self {
        Self { pages: Vec::new(), blank }
    }

    /// A place, to be written.
    pub fn slot(&mut self, at: u32) -> &mut T {
        let (page, place) = split(at);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, Box::default);
        }
        let page = &mut self.pages[page];
        if page.is_empty() {
            *page = vec![self.blank.clone(); PAGE].into();
        }
        &mut page[place]
    }
}

impl<T> Paged<T> {
    /// All places of the pages there are, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let pages = self.pages.iter().zip(0..);
        pages.flat_map(|(page, at): (_, u32)| (at * PAGE as u32..).zip(page.iter()))
    }
}

impl<T> Index<u32> for Paged<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        let (page, place) = split(at);
        self.pages.get(page).and_then(|page| page.get(place)).unwrap_or(&self.blank)
    }
}

impl<T: Clone> IndexMut<u32> for Paged<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        self.slot(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_written_is_blank() {
        let mut paged = Paged::new(7);
        paged[3 * PAGE as u32] = 1;
        paged[0] = 2;
        assert_eq!([0, 1, PAGE as u32, 3 * PAGE as u32, u32::MAX].map(|at| paged[at]), [2, 7, 7, 1, 7]);
        assert_eq!(paged.pages.iter().map(|page| page.len()).collect::<Vec<_>>(), [PAGE, 0, 0, PAGE]);
    }
}
