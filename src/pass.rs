//! One trip of all due orphans through the pipeline.
