//! Start, privileges, signals and end of the conductor.

use crate::{ConductorError, Settings};

/// Reads the settings again, as they are configured now; else says why that can't be.
pub type Reread = Box<dyn Fn() -> Result<Settings, String> + Send + Sync>;

/// Runs the conductor until it is told to end. Programs and tables stay in the kernel.
///
/// # Errors
/// When it can't start.
pub fn main(settings: Settings, reread: Reread) -> Result<(), ConductorError> {
    let _ = (&settings.steering, reread);
    Err(ConductorError::Settings(
        "this build of the conductor has no tasks yet".to_owned(),
    ))
}

/// Takes everything out of the kernel that a conductor with these settings has put there.
///
/// # Errors
/// A conductor runs, or the process may not.
pub fn detach(settings: &Settings) -> Result<(), ConductorError> {
    let _ = settings;
    Err(ConductorError::Settings(
        "this build of the conductor has no tasks yet".to_owned(),
    ))
}
