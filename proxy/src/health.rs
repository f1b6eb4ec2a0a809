//! Active checks of endpoints.
