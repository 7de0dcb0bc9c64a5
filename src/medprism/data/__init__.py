"""From files to batches: cohorts and layouts, intensities, the prepared cache, patches."""
