//! Local storage maps: one typed value per owner and map, guarded by rqspinlock.
