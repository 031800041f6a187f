//! The kernel: from Debian's compressed `bzImage` to the ELF file QEMU boots by PVH, which saves the guest a second of unpacking.
//!
//! Source of the offsets: the Linux boot protocol (Documentation/arch/x86/boot.rst), 2.08 and later.

use std::io::{self, Read};

use elf::ElfBytes;
use elf::endian::LittleEndian;

const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Far above any kernel; a payload that grows beyond is broken.
const MAX_KERNEL: u64 = 512 << 20;

/// Why no kernel came out of the image.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file has no boot header, or one that points outside.
    #[error("the kernel is no bzImage: {0}")]
    NotABzImage(&'static str),
    /// The payload is compressed in a way this program does not know.
    #[error("the kernel is compressed in an unknown way (it starts with {0:02x?}); LZ4 and zstd are known")]
    Compression(Vec<u8>),
    /// The payload does not unpack.
    #[error("the kernel does not unpack")]
    Unpack(#[source] io::Error),
    /// The payload unpacks to something of another size than it says.
    #[error("the kernel unpacks to {got} bytes and should have {expected}")]
    Size {
        /// What came out.
        got: usize,
        /// What the payload's last four bytes say.
        expected: usize,
    },
    /// What came out is no ELF file.
    #[error("the unpacked kernel is no ELF file")]
    NotElf,
}

/// Unpacks the ELF kernel from a `bzImage`.
///
/// # Errors
/// When the image is broken or compressed in an unknown way.
pub(crate) fn extract_vmlinux(image: &[u8]) -> Result<Vec<u8>, KernelError> {
    let payload = payload(image)?;
    // The kernel's build appends the unpacked size to every payload but gzip's.
    let (packed, size) =
        payload.split_last_chunk::<4>().ok_or(KernelError::NotABzImage("it has no payload"))?;
    let expected = u32::from_le_bytes(*size) as usize;
    let vmlinux = unpack(packed)?;
    if vmlinux.len() != expected {
        return Err(KernelError::Size { got: vmlinux.len(), expected });
    }
    ElfBytes::<LittleEndian>::minimal_parse(&vmlinux).map_err(|_| KernelError::NotElf)?;
    Ok(vmlinux)
}

fn payload(image: &[u8]) -> Result<&[u8], KernelError> {
    if image.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err(KernelError::NotABzImage("it has no boot header"));
    }
    let short = KernelError::NotABzImage("its header points outside");
    let sectors = match image.get(SETUP_SECTS) {
        Some(0) | None => 4,
        Some(&n) => usize::from(n),
    };
    let (Some(offset), Some(length)) = (word(image, PAYLOAD_OFFSET), word(image, PAYLOAD_LENGTH)) else {
        return Err(short);
    };
    let start = (sectors + 1) * SECTOR + offset;
    image.get(start..start.saturating_add(length)).ok_or(short)
}

fn word(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes) as usize)
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, KernelError> {
    let mut out = Vec::new();
    match packed.first_chunk::<4>() {
        Some(&LZ4_LEGACY) => {
            lz4_flex::frame::FrameDecoder::new(packed).take(MAX_KERNEL).read_to_end(&mut out)
        }
        Some(&ZSTD) => ruzstd::decoding::StreamingDecoder::new(packed)
            .map_err(|error| KernelError::Unpack(io::Error::other(error)))?
            .take(MAX_KERNEL)
            .read_to_end(&mut out),
        _ => return Err(KernelError::Compression(packed.iter().take(4).copied().collect())),
    }
    .map_err(KernelError::Unpack)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `bzImage` with one setup sector, whose payload starts 16 bytes into the protected part.
    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0_u8; 2 * SECTOR + 16];
        image[SETUP_SECTS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4]
            .copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(b"after the payload");
        image
    }

    fn lz4_legacy(data: &[u8]) -> Vec<u8> {
        let mut packed = LZ4_LEGACY.to_vec();
        for chunk in data.chunks(8 << 20) {
            let block = lz4_flex::block::compress(chunk);
            packed.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
            packed.extend_from_slice(&block);
        }
        packed
    }

    fn sized(mut packed: Vec<u8>, size: usize) -> Vec<u8> {
        packed.extend_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
        packed
    }

    #[test]
    fn an_lz4_kernel_of_several_blocks_comes_out_whole() {
        let mut kernel = std::fs::read("/bin/sh").unwrap();
        kernel.resize(20 << 20, 7);
        let image = bzimage(&sized(lz4_legacy(&kernel), kernel.len()));
        assert!(extract_vmlinux(&image).unwrap() == kernel);
    }

    #[test]
    fn a_zstd_kernel_comes_out_whole() {
        let kernel = std::fs::read("/bin/sh").unwrap();
        let packed =
            ruzstd::encoding::compress_to_vec(kernel.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        let image = bzimage(&sized(packed, kernel.len()));
        assert!(extract_vmlinux(&image).unwrap() == kernel);
    }

    #[test]
    fn a_wrong_size_is_noticed() {
        let kernel = std::fs::read("/bin/sh").unwrap();
        let image = bzimage(&sized(lz4_legacy(&kernel), kernel.len() + 1));
        assert!(matches!(extract_vmlinux(&image), Err(KernelError::Size { .. })));
    }

    #[test]
    fn broken_images_are_refused_and_never_panic() {
        assert!(matches!(extract_vmlinux(b""), Err(KernelError::NotABzImage(_))));
        assert!(matches!(extract_vmlinux(&[0; 4096]), Err(KernelError::NotABzImage(_))));
        let gzip = bzimage(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
        assert!(matches!(extract_vmlinux(&gzip), Err(KernelError::Compression(_))));
        let text = bzimage(&sized(lz4_legacy(b"no ELF"), 6));
        assert!(matches!(extract_vmlinux(&text), Err(KernelError::NotElf)));
        let mut far = bzimage(b"x");
        far[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(extract_vmlinux(&far), Err(KernelError::NotABzImage(_))));
    }
}
