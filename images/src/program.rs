//! Programs for the guest: would this file run there? The initramfs has no dynamic linker, so it has to be static.

use std::fs;
use std::path::{Path, PathBuf};

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PT_INTERP};
use elf::endian::LittleEndian;

use crate::build::GUEST_BUILD_COMMAND;

/// Why a file is no program for the guest.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The file cannot be read.
    #[error("cannot read the program {} (built by: {GUEST_BUILD_COMMAND})", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no ELF program.
    #[error("{} is no ELF program", path.display())]
    NotAProgram {
        /// The file.
        path: PathBuf,
    },
    /// The file is for another machine.
    #[error("{} is for the ELF machine {machine}, and the image for x86-64 ({EM_X86_64})", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// What its header says.
        machine: u16,
    },
    /// The file needs a dynamic linker, which the image does not have.
    #[error("{} is dynamically linked (it asks for {linker}); build it static: {GUEST_BUILD_COMMAND}", path.display())]
    Dynamic {
        /// The file.
        path: PathBuf,
        /// The linker it names.
        linker: String,
    },
}

/// Reads a program and makes sure that it runs in a guest without libraries.
///
/// # Errors
/// When it does not.
pub(crate) fn read_static(path: &Path) -> Result<Vec<u8>, ProgramError> {
    let bytes = fs::read(path).map_err(|source| ProgramError::Read { path: path.to_owned(), source })?;
    check_static(path, &bytes)?;
    Ok(bytes)
}

/// The same for bytes that came from elsewhere; `path` is for messages.
///
/// # Errors
/// When they are no static program for x86-64.
pub(crate) fn check_static(path: &Path, bytes: &[u8]) -> Result<(), ProgramError> {
    let not_a_program = || ProgramError::NotAProgram { path: path.to_owned() };
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(|_| not_a_program())?;
    if !matches!(file.ehdr.e_type, ET_EXEC | ET_DYN) {
        return Err(not_a_program());
    }
    if file.ehdr.e_machine != EM_X86_64 {
        return Err(ProgramError::Machine { path: path.to_owned(), machine: file.ehdr.e_machine });
    }
    let segments = file.segments().ok_or_else(not_a_program)?;
    let Some(interpreter) = segments.iter().find(|segment| segment.p_type == PT_INTERP) else {
        return Ok(());
    };
    let name = file.segment_data(&interpreter).unwrap_or_default();
    let linker = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
    Err(ProgramError::Dynamic { path: path.to_owned(), linker })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_refused_with_the_way_to_build_it() {
        let error = read_static(Path::new("/bin/sh")).unwrap_err();
        assert!(matches!(error, ProgramError::Dynamic { .. }), "{error:?}");
        assert!(error.to_string().contains("+crt-static"), "{error}");
    }

    #[test]
    fn a_text_is_no_program() {
        assert!(matches!(
            check_static(Path::new("x"), b"#!/bin/sh\n"),
            Err(ProgramError::NotAProgram { .. })
        ));
    }

    #[test]
    fn another_machine_is_named() {
        let mut bytes = fs::read("/bin/sh").unwrap();
        bytes[18..20].copy_from_slice(&183_u16.to_le_bytes());
        assert!(matches!(
            check_static(Path::new("x"), &bytes),
            Err(ProgramError::Machine { machine: 183, .. })
        ));
    }

    #[test]
    fn a_missing_program_says_how_it_is_made() {
        let error = read_static(Path::new("/nonexistent/peerpods-guest")).unwrap_err();
        assert!(error.to_string().contains("cargo build"), "{error}");
    }
}
