//! How generated modules are declared. A macro, so that rustfmt does not follow it into the files.

/// Declares generated modules, which are held neither to our lints nor to our formatting.
macro_rules! generated {
    ($($(#[doc = $doc:literal])* $name:ident = $file:literal;)*) => {
        $(
            $(#[doc = $doc])*
            #[allow(
                missing_docs,
                unreachable_pub,
                unsafe_code,
                unused_imports,
                unused_results,
                clippy::all,
                clippy::allow_attributes_without_reason,
                clippy::unwrap_used,
                clippy::expect_used,
                clippy::panic,
                clippy::large_futures,
                reason = "generated code follows its generator's habits, and is checked by tests/drift.rs"
            )]
            #[path = $file]
            pub mod $name;
        )*
    };
}

pub(crate) use generated;
