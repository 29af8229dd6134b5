//! The command line.

use std::io::{self, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::process;
use std::thread::available_parallelism;
use std::time::Duration;

use lexopt::ValueExt;

use crate::samples::Samples;

pub(crate) const USAGE: &str = "\
Usage: thumbnails [OPTION]... FOLDER OUT
       thumbnails make-samples [--images N] [--hostile N] [--seed S] FOLDER

Makes a PNG in OUT of each image in FOLDER: of bmp, gif, jpeg, png, rle, tiff and webp files.

  --width N               largest width of a thumbnail, in pixels (default: 200)
  --workers N             images at a time (default: one per processor)
  --time-limit SECONDS    for one image (default: 10)
  --memory-limit MIB      for one image (default: 512)
  --threads               run in threads, which have no limits and do not survive a crash
  --deadline SECONDS      for the whole run (default: none; 300 with --threads)

make-samples makes images and hostile files, the same for the same seed.

  --images N              number of images (default: 1000)
  --hostile N             number of hostile files (default: 30)
  --seed S                number that they are made from (default: 1)

The exit status is 1 if a file failed, 2 for wrong arguments, 130 after Ctrl-C.
";

/// What to do.
pub(crate) enum Command {
    MakeThumbnails(Options),
    MakeSamples(Samples, PathBuf),
}

pub(crate) struct Options {
    pub(crate) folder: PathBuf,
    pub(crate) out: PathBuf,
    pub(crate) width: u32,
    pub(crate) workers: NonZero<usize>,
    pub(crate) place: Place,
    pub(crate) deadline: Option<Duration>,
}

/// Where the tasks run.
pub(crate) enum Place {
    Processes {
        time_limit: Duration,
        /// In bytes.
        memory_limit: u64,
    },
    Threads,
}

impl Command {
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let mut paths = Vec::new();
        let (mut width, mut workers) = (NonZero::new(200).expect("200 is not 0"), None);
        let (mut time_limit, mut memory_limit, mut deadline) = (None, None, None);
        let (mut threads, mut make_samples) = (false, false);
        let mut samples = Samples {
            images: 1_000,
            hostile: 30,
            seed: 1,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => {
                    let _ = io::stdout().write_all(USAGE.as_bytes());
                    process::exit(0);
                }
                Value(word) if word == "make-samples" && paths.is_empty() && !make_samples => {
                    make_samples = true;
                }
                Value(path) => paths.push(PathBuf::from(path)),
                Long("images") if make_samples => samples.images = arguments.value()?.parse()?,
                Long("hostile") if make_samples => samples.hostile = arguments.value()?.parse()?,
                Long("seed") if make_samples => samples.seed = arguments.value()?.parse()?,
                Long("width") if !make_samples => width = arguments.value()?.parse()?,
                Long("workers") if !make_samples => workers = Some(arguments.value()?.parse()?),
                Long("time-limit") if !make_samples => time_limit = Some(seconds(&mut arguments)?),
                Long("memory-limit") if !make_samples => {
                    let mebibytes: NonZero<u32> = arguments.value()?.parse()?;
                    memory_limit = Some(u64::from(mebibytes.get()) << 20);
                }
                Long("threads") if !make_samples => threads = true,
                Long("deadline") if !make_samples => deadline = Some(seconds(&mut arguments)?),
                _ => return Err(argument.unexpected()),
            }
        }
        if make_samples {
            let [folder] = paths
                .try_into()
                .map_err(|_| "make-samples takes one FOLDER")?;
            return Ok(Self::MakeSamples(samples, folder));
        }
        if threads && (time_limit.is_some() || memory_limit.is_some()) {
            return Err("a thread cannot keep a time limit or a memory limit".into());
        }
        let [folder, out] = paths.try_into().map_err(|_| "FOLDER and OUT are needed")?;
        let processors = || available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let place = match threads {
            true => Place::Threads,
            false => Place::Processes {
                time_limit: time_limit.unwrap_or(Duration::from_secs(10)),
                memory_limit: memory_limit.unwrap_or(512 << 20),
            },
        };
        Ok(Self::MakeThumbnails(Options {
            folder,
            out,
            width: u32::from(width),
            workers: workers.unwrap_or_else(processors),
            place,
            deadline: deadline.or(threads.then_some(Duration::from_secs(300))),
        }))
    }
}

/// Returns the value of the current option as a time.
fn seconds(arguments: &mut lexopt::Parser) -> Result<Duration, lexopt::Error> {
    arguments.value()?.parse_with(|value| {
        let seconds = value.parse().map_err(|_| "expected a number of seconds")?;
        let time = Duration::try_from_secs_f64(seconds).map_err(|_| "expected a number of seconds");
        time.and_then(|time| match time.is_zero() {
            true => Err("0 seconds are too few"),
            false => Ok(time),
        })
    })
}
