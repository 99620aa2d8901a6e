//! A service under many random schedules, compared.
