//! A request's body that more than one reader wants: kept for another attempt, copied to mirrors, captured.
