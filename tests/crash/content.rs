//! A file's bytes in pages that copies share until one of them is changed: the disk is copied at every crash point.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

const PAGE_BYTES: usize = 4_096;

struct Page {
    bytes: [u8; PAGE_BYTES],
    /// Of the bytes, once somebody asked.
    digest: OnceLock<u64>,
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes, digest: OnceLock::new() }
    }
}

impl Page {
    fn digest(&self) -> u64 {
        *self.digest.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            hasher.write(&self.bytes);
            hasher.finish()
        })
    }
}

/// The bytes of a file; none beyond its end are other than zero.
#[derive(Clone, Default)]
pub(crate) struct Content {
    pages: Vec<Arc<Page>>,
    len: usize,
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len);
        self.pages.iter().for_each(|page| state.write_u64(page.digest()));
    }
}

impl Content {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Fills the front of `to`; with how many bytes.
    pub(crate) fn read(&self, at: usize, to: &mut [u8]) -> usize {
        let there = self.len.saturating_sub(at).min(to.len());
        let mut done = 0;
        while done < there {
            let (page, within) = ((at + done) / PAGE_BYTES, (at + done) % PAGE_BYTES);
            let count = (there - done).min(PAGE_BYTES - within);
            to[done..done + count].copy_from_slice(&self.pages[page].bytes[within..within + count]);
            done += count;
        }
        there
    }

    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        if self.len < at + bytes.len() {
            self.resize(at + bytes.len());
        }
        let mut done = 0;
        while done < bytes.len() {
            let (page, within) = ((at + done) / PAGE_BYTES, (at + done) % PAGE_BYTES);
            let count = (bytes.len() - done).min(PAGE_BYTES - within);
            self.page_mut(page)[within..within + count].copy_from_slice(&bytes[done..done + count]);
            done += count;
        }
    }

    /// Cuts it, or fills it up with zeroes.
    pub(crate) fn resize(&mut self, len: usize) {
        let zeroes = || Arc::new(Page { bytes: [0; PAGE_BYTES], digest: OnceLock::new() });
        self.pages.resize_with(len.div_ceil(PAGE_BYTES), zeroes);
        if len < self.len && !len.is_multiple_of(PAGE_BYTES) {
            self.page_mut(len / PAGE_BYTES)[len % PAGE_BYTES..].fill(0);
        }
        self.len = len;
    }

    fn page_mut(&mut self, page: usize) -> &mut [u8; PAGE_BYTES] {
        let page = Arc::make_mut(&mut self.pages[page]);
        page.digest.take();
        &mut page.bytes
    }
}
