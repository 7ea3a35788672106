//! Frames between control and the engine: what is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_snapshot::{ToControl, ToEngine, frame};
use serde_json::Value;

/// As JSON values, since the messages themselves hold secrets and can't be compared.
fn check<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) {
    let Ok(Some((message, used))) = frame::decode::<T>(bytes) else {
        return;
    };
    assert!(used <= bytes.len());
    let again = frame::encode(&message).expect("it encodes");
    let (second, length) = frame::decode::<T>(&again)
        .expect("it decodes")
        .expect("it is whole");
    assert_eq!(length, again.len());
    let value = |message: &T| -> Value { serde_json::to_value(message).expect("it is JSON") };
    assert_eq!(value(&message), value(&second));
}

fuzz_target!(|bytes: &[u8]| {
    check::<ToEngine>(bytes);
    check::<ToControl>(bytes);
});
