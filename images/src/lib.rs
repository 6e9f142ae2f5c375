//! Makes guest images from distributions' packages.
