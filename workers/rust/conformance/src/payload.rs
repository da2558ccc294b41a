//! Little-endian fields of a payload, read where they lie.

use ringbridge_worker::Error;

use crate::CODE_BAD_PAYLOAD;

/// What is left of a payload.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'j>(&'j [u8]);

impl<'j> Fields<'j> {
    pub fn of(payload: &'j [u8]) -> Self {
        Fields(payload)
    }

    /// The next `size` bytes.
    pub fn take(&mut self, size: usize) -> Result<&'j [u8], Error> {
        if size > self.0.len() {
            let why = format!("the payload ends {} bytes early", size - self.0.len());
            return Err(Error::failed(CODE_BAD_PAYLOAD, why));
        }
        let (field, rest) = self.0.split_at(size);
        self.0 = rest;
        Ok(field)
    }

    fn number(&mut self, size: usize) -> Result<u64, Error> {
        Ok(self.take(size)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    pub fn u8(&mut self) -> Result<u8, Error> {
        self.number(1).map(|n| n as u8)
    }
    pub fn u16(&mut self) -> Result<u16, Error> {
        self.number(2).map(|n| n as u16)
    }
    pub fn u32(&mut self) -> Result<u32, Error> {
        self.number(4).map(|n| n as u32)
    }
    pub fn u64(&mut self) -> Result<u64, Error> {
        self.number(8)
    }

    pub fn rest(self) -> &'j [u8] {
        self.0
    }
}
