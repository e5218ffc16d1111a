//! The command line: every command and option, once. Parsing has no side effects.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Deep neural networks on SpiNNaker machines.
#[derive(Debug, Parser)]
#[command(name = "spidnn", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub common: Common,
}

const MACHINE_HELP: &str = "\
Machine to run on. `virtual:spin5` (48 chips), `virtual:spin3`, `virtual:8x8`, `virtual:3boards`; options after `?`, joined \
by `&`: seed=N, drop=P (probability that a packet is lost on a link), hostdrop=P, dead=x,y[,core] and \
deadlink=x,y,dir (repeatable), cores=N, host_mbps=N, threads=N. `board:HOST[:PORT]`: a board on the network, or a `spidnn board`; \
options: version=3|5 (what a board that is not booted is), boot_port=N. `spalloc:SERVER[:PORT]`, `spalloc:https://HOST/PATH`: boards of \
an allocation server; options: boards=N, triads=WxH or board=x,y,z, owner=NAME, machine=NAME, tags=a,b, keepalive=SECONDS, \
wait=SECONDS";

/// Options of every command.
#[derive(Debug, Args)]
pub struct Common {
    /// Machine to run on (see the long help)
    #[arg(long, global = true, value_name = "M", default_value = "virtual:spin5", long_help = MACHINE_HELP)]
    pub machine: String,
    /// Format of the numbers on the cores
    #[arg(long, global = true, value_enum, default_value_t = Format::F32)]
    pub format: Format,
    /// Inputs from which format `int8` takes the ranges of the numbers (default: the first ones that are predicted)
    #[arg(long, global = true, value_name = "DATA")]
    pub calibration: Option<String>,
    /// Chips that hold one copy of the model: `auto`, or a number (this version: 1)
    #[arg(long, global = true, value_name = "auto|CHIPS", default_value = "auto")]
    pub groups: String,
    /// Seed of untrained weights, of the order of samples, and of dropout
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Folder for the plan and the figures of the run
    #[arg(long, global = true, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// File for a timeline of what the host asked of the machine (Chrome's trace format, machine time); of `board`: of what cores,
    /// DMA controllers and links did
    #[arg(long, global = true, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// One JSON object on standard output; progress and logs stay on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bars
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// Number formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// float32-grade: same error bound as an f32 dot product
    F32,
    /// 16-bit block floating point, for predictions and training
    Bfp16,
    /// 8-bit integers, for predictions
    Int8,
}

const MODEL_HELP: &str = "\
A .keras or .h5 file; a .json architecture (untrained), or MODEL.json+WEIGHTS with a weights file; or a built-in network: lenet5, \
lenet1, lenet4, mlp, resnet20, resnet50 (untrained)";

const DATA_HELP: &str = "\
`mnist` (the bundled training digits), `mnist#test`, `mnist:FOLDER[#test]` (IDX files), a .npz (arrays x, y, or one for each input and \
output by name or as x0, x1, .., y0, ..; optionally sample_weight), a .npy (inputs only), or a .csv";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Layers, shapes, parameters, multiply-accumulates
    Info {
        /// Model file or built-in network
        #[arg(long_help = MODEL_HELP)]
        model: String,
    },
    /// The plan without running it: cores, memory, predicted cycles and time, and what limits it
    Compile {
        /// Model file or built-in network
        #[arg(long_help = MODEL_HELP)]
        model: String,
        /// Samples of one run over the whole machine
        #[arg(long, value_name = "N", default_value_t = 240)]
        batch_size: usize,
        /// Plan the training too, with this loss (Keras name)
        #[arg(long, value_name = "L")]
        loss: Option<String>,
        /// Optimizer of the training, by its Keras name and arguments
        #[arg(long, value_name = "O", default_value = "adam")]
        optimizer: String,
    },
    /// Outputs of a model
    Predict {
        /// Model file or built-in network
        #[arg(long_help = MODEL_HELP)]
        model: String,
        /// Inputs
        #[arg(long_help = DATA_HELP)]
        inputs: String,
        /// File for the outputs (.npz, or .npy for one output): array `y`, or one for each output by name
        #[arg(short, long, value_name = "OUT")]
        output: Option<PathBuf>,
        /// Use the first N samples only
        #[arg(long, value_name = "N")]
        samples: Option<usize>,
    },
    /// Outputs of a model for inputs that come one by one: latency and throughput in machine time
    Stream(Stream),
    /// Loss and metrics of a model on data
    Evaluate {
        /// Model file or built-in network
        #[arg(long_help = MODEL_HELP)]
        model: String,
        /// Data with targets
        #[arg(long_help = DATA_HELP)]
        data: String,
        /// Loss by its Keras name (`binary_crossentropy:from_logits=true`); default: the model's own, or one that fits its output
        #[arg(long, value_name = "L")]
        loss: Option<String>,
        /// Metrics by their Keras names, comma separated; arguments as `top_k_categorical_accuracy:k=3`
        #[arg(long, value_name = "A,B")]
        metrics: Option<String>,
        /// Use the first N samples only
        #[arg(long, value_name = "N")]
        samples: Option<usize>,
    },
    /// Train a model
    Fit(Box<Fit>),
    /// What is there: chips, cores, links, versions, dead parts
    Machine {
        /// Machine (as --machine)
        #[arg(value_name = "M", long_help = MACHINE_HELP)]
        locator: Option<String>,
    },
    /// What stands between this computer and a machine, and what to do about it
    Doctor {
        /// Machine (as --machine)
        #[arg(value_name = "M", long_help = MACHINE_HELP)]
        locator: Option<String>,
    },
    /// Load an application of any kind, run it, and show what its cores do: their states and their text (`io_buf`)
    App(App),
    /// A virtual board on UDP for any client: booted, with an emulated monitor, for SpiDNN's own programs; or with fidelity=cycle
    /// blank, for any that there are. With --json the first line of standard output says where it listens. On standard
    /// input it takes the words `snapshot` and `quit`
    Board(Board),
    /// The figures that the README quotes, as ratios where they are times
    Bench {
        /// Only the figures whose name contains this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
}

/// Options of `app`.
#[derive(Debug, Args)]
pub struct App {
    /// Machine (as --machine)
    #[arg(value_name = "M", long_help = MACHINE_HELP)]
    pub locator: String,
    /// The application (APLX)
    #[arg(value_name = "FILE.aplx", required_unless_present = "stop")]
    pub file: Option<PathBuf>,
    /// Cores to start it on: `0,0:1-16`, `1,2:3,5`, or `all:1-16` for every chip (repeatable)
    #[arg(long, value_name = "X,Y:CORES", required_unless_present = "stop")]
    pub cores: Vec<String>,
    /// Wait so many seconds at most for all cores to end, before their states are shown
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub wait: f64,
    /// Number of the application on the machine, 17 to 254; default: the first that is free
    #[arg(long, value_name = "ID")]
    pub app_id: Option<u8>,
    /// Leave it running; else it is stopped when its cores have been shown
    #[arg(long)]
    pub keep: bool,
    /// Stop the application of this number instead, and free what it holds
    #[arg(long, value_name = "ID", conflicts_with_all = ["file", "cores", "app_id", "keep"])]
    pub stop: Option<u8>,
}

/// Options of `stream`.
#[derive(Debug, Args)]
pub struct Stream {
    /// Model file or built-in network
    #[arg(long_help = MODEL_HELP)]
    pub model: String,
    /// Inputs; with --listen they come from there instead (format `int8` takes the ranges of the numbers from these)
    #[arg(long_help = DATA_HELP, required_unless_present = "listen")]
    pub inputs: Option<String>,
    /// Inputs that come in a second of machine time; default: as fast as there is room for them
    #[arg(long, value_name = "HZ", conflicts_with = "listen")]
    pub rate: Option<f64>,
    /// Inputs under way at most; default: two batches of as many as keep both the link and the cores busy (with --rate: all)
    #[arg(long, value_name = "N")]
    pub capacity: Option<usize>,
    /// Inputs that run together at most; default: half of the capacity
    #[arg(long, value_name = "N")]
    pub batch_max: Option<usize>,
    /// Inputs that a chip takes at a time: 1 for the shortest latency of a lone input, more for throughput; default: 4
    #[arg(long, value_name = "N")]
    pub samples_per_chip: Option<usize>,
    /// File for the outputs (.npz, or .npy for one output): array `y`, or one for each output by name
    #[arg(short, long, value_name = "OUT", conflicts_with = "listen")]
    pub output: Option<PathBuf>,
    /// Use the first N samples only; with --listen, end after so many
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Take inputs from UDP at this address (port 0: any that is free; repeat it for each input of the network): EIEIO packets of 32-bit
    /// keys and payloads. A key is --keys + sequence number * 2^e + element, where 2^e is the least power of two that holds the
    /// elements; the payload is an IEEE float. Ends at EVENT_STOP or Ctrl-C. With --json the first line says where it listens
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<std::net::SocketAddr>,
    /// Inputs are SDP messages of this tag and port instead: words of sequence number and first element, then IEEE floats
    #[arg(long, value_name = "TAG,PORT", requires = "listen")]
    pub sdp: Option<String>,
    /// Send outputs there (repeat it for each output of the network), by keys as those of the inputs; before them goes a packet with the
    /// times at which the input was answered and pushed
    #[arg(long, value_name = "ADDR:PORT", requires = "listen")]
    pub send: Vec<std::net::SocketAddr>,
    /// First key of inputs and outputs (the sequence number takes the bits below its lowest one, 16 at most)
    #[arg(long, value_name = "KEY", default_value = "0", requires = "listen")]
    pub keys: String,
    /// Address that may send inputs (repeatable); default: whoever sends the first that can be used
    #[arg(long, value_name = "ADDR", requires = "listen")]
    pub source: Vec<std::net::IpAddr>,
    /// What becomes of an input of which something is missing: it is reported, or its sender is asked for it so many times
    #[arg(long, value_name = "report|resend|resend:N", default_value = "report", requires = "listen")]
    pub lost: String,
    /// Milliseconds in which nothing of an input may come before something counts as missing
    #[arg(long, value_name = "MS", default_value_t = 50, requires = "listen")]
    pub patience: u64,
}

/// Options of `board`.
#[derive(Debug, Args)]
pub struct Board {
    /// Address of the first board, and the port of its monitor (0: any that is free); further boards have the addresses after it
    #[arg(long, value_name = "ADDR[:PORT]", default_value = "127.0.0.1:17893")]
    pub listen: String,
    /// Port of the boot ROMs; default: 54321, or any that is free if the monitor's is
    #[arg(long, value_name = "PORT")]
    pub boot_port: Option<u16>,
    /// Address of the management processor (its port is that of the monitors); default: the one after the last board
    #[arg(long, value_name = "ADDR")]
    pub bmp: Option<std::net::Ipv4Addr>,
    /// With fidelity=cycle: boot the machine with this image at the start instead of waiting for a client to do it. GDB (--gdb) is let in only when the
    /// image has been sent: to stop at its first instruction, leave this out and have a client boot
    #[arg(long, value_name = "FILE")]
    pub boot_image: Option<PathBuf>,
    /// Machine time: so many times real time, or `fast`: as fast as this computer can while there is anything to do. Default: fast,
    /// and 1 with fidelity=cycle
    #[arg(long, value_name = "N|fast")]
    pub pace: Option<String>,
    /// Log every request and reply
    #[arg(long)]
    pub packets: bool,
    /// Let GDB have a core (`target remote ADDR:PORT`); while it is halted the machine's time stands still. Cores here by their SCP
    /// numbers, 0 is the monitor
    #[arg(long, value_name = "X,Y,P")]
    pub gdb: Option<String>,
    /// TCP port for GDB at the first board's address (0: any that is free)
    #[arg(long, value_name = "PORT", default_value_t = 1234, requires = "gdb")]
    pub gdb_port: u16,
    /// Stop for GDB, or without one say so in the log and go on: at multicast packets with KEY where MASK has ones at a chip's router,
    /// or at DMA transfers of a core (repeatable)
    #[arg(long = "break", value_name = "packet:KEY/MASK@X,Y|dma@X,Y,P")]
    pub breaks: Vec<String>,
    /// Count cycles by core and function, and print them at the end: FILE is the program's ELF file, or `none` for addresses alone
    /// (the simulation is several times slower)
    #[arg(long, value_name = "FILE.elf|none")]
    pub profile: Option<PathBuf>,
    /// Write every instruction of a core to a file: its clock, address, and text (repeatable)
    #[arg(long, value_name = "X,Y,P=FILE")]
    pub instruction_trace: Vec<String>,
    /// Instructions that an instruction trace holds at most, and spans that --trace does
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub trace_limit: usize,
}

#[derive(Debug, Args)]
pub struct Fit {
    /// Model file or built-in network
    #[arg(long_help = MODEL_HELP)]
    pub model: String,
    /// Data with targets
    #[arg(long_help = DATA_HELP)]
    pub data: String,
    /// Loss by its Keras name; default: the model's own, or one that fits its output
    #[arg(long, value_name = "L")]
    pub loss: Option<String>,
    /// Optimizer by its Keras name and arguments (`adam:learning_rate=0.003,beta_1=0.8`; `lr` for short); default: the model's own, or
    /// adam with a rate that falls from 0.003 to 0 over the fit (`adam:lr=CosineDecay(initial_learning_rate=0.003,decay_steps=..)`)
    #[arg(long, value_name = "O")]
    pub optimizer: Option<String>,
    /// Epochs in all
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub epochs: usize,
    /// Samples of a step, over the whole machine
    #[arg(long, value_name = "N", default_value_t = 240)]
    pub batch_size: usize,
    /// Validation data; default: the test set, where the data are `mnist`
    #[arg(long, value_name = "DATA")]
    pub validation: Option<String>,
    /// Validate on the last part of the data instead (a fraction)
    #[arg(long, value_name = "F", conflicts_with = "validation")]
    pub validation_split: Option<f64>,
    /// Metrics by their Keras names, comma separated; default: accuracy for classes
    #[arg(long, value_name = "A,B")]
    pub metrics: Option<String>,
    /// Take the samples in their order
    #[arg(long)]
    pub no_shuffle: bool,
    /// Folder for checkpoints: after each epoch, and when interrupted
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    /// Go on from the newest checkpoint
    #[arg(long, requires = "checkpoint")]
    pub resume: bool,
    /// Stop when the validation loss (or, without validation, the loss) has not improved for N epochs
    #[arg(long, value_name = "N")]
    pub early_stopping: Option<usize>,
    /// Write a line of values for each epoch to this file
    #[arg(long, value_name = "FILE")]
    pub csv_log: Option<PathBuf>,
    /// Weights of classes: `0=1,1=2.5`
    #[arg(long, value_name = "C=W,..")]
    pub class_weight: Option<String>,
    /// Use the first N samples only
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// File for the trained model: .keras, .h5; or the weights alone: .npz, .weights.h5
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
}
