//! Generates the bindings from the headers of the DPDK that pkg-config finds.
//!
//! Functions that the headers define inline, those of every packet among them, are wrapped in C functions of the
//! same name that bindgen writes and `cc` compiles, for the processor that DPDK was built for.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

/// The oldest release whose names and structures the runtime uses.
const OLDEST: &str = "21.11";

/// Functions that the runtime calls. Types and constants follow from them.
const FUNCTIONS: &[&str] = &[
    "catnip_.*",
    "rte_(dev_(probe|remove|dma_map|dma_unmap)|eal_(hotplug_remove|init|iova_mode)|strerror|epoll_wait)",
    "rte_(extmem_(register|unregister)|zmalloc|free|lcore_id|thread_register|thread_unregister)",
    "rte_eth_dev_(adjust_nb_rx_tx_desc|callback_register|callback_unregister|close|configure)",
    "rte_eth_dev_(default_mac_addr_set|get_mtu|get_name_by_port|get_port_by_name|info_get|is_valid_port)",
    "rte_eth_dev_(rss_hash_(conf_get|update)|rss_reta_(query|update)|rx_intr_ctl_q|rx_intr_disable|rx_intr_enable|set_mtu|start|stop)",
    "rte_eth_(link_get_nowait|macaddr_get)",
    "rte_eth_(allmulticast_enable|promiscuous_enable|rx_burst|rx_queue_count|rx_queue_setup)",
    "rte_eth_(tx_burst|tx_prepare|tx_done_cleanup|tx_queue_setup|xstats_get|xstats_get_names)",
    "rte_mempool_(avail_count|free|get_bulk)",
    "rte_pktmbuf_(alloc_bulk|free|free_seg|pool_create|pool_create_extbuf)",
];

/// What the runtime reads and writes beside arguments of those functions.
const CONSTANTS: &[&str] = &["CATNIP_RTE_.*", "RTE_(ETH_NAME_MAX_LEN|INTR_EVENT_(ADD|DEL)|PKTMBUF_HEADROOM)"];

fn main() -> ExitCode {
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The machine's DPDK, or else the one that `make dpdk` built.
fn find() -> Option<pkg_config::Library> {
    let mut search = pkg_config::Config::new();
    search.atleast_version(OLDEST).cargo_metadata(false);
    if let Ok(installed) = search.probe("libdpdk") {
        return Some(installed);
    }
    let built = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?).join("../../build/dpdk/install");
    println!("cargo::rerun-if-changed={}", built.display());
    let folder = find_folder(&built, "libdpdk.pc")?;
    // SAFETY: a build script has one thread.
    unsafe { env::set_var("PKG_CONFIG_PATH", folder) };
    search.probe("libdpdk").ok()
}

/// The folder below `root` that has a file of that name: where libraries lie differs between distributions.
fn find_folder(root: &Path, file: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(root).ok()?.flatten().map(|entry| entry.path()).collect();
    if entries.iter().any(|entry| entry.file_name().is_some_and(|name| name == file)) {
        return Some(root.to_path_buf());
    }
    entries
        .iter()
        .filter(|entry| entry.is_dir() && !entry.is_symlink())
        .find_map(|entry| find_folder(entry, file))
}

fn generate() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=wrapper.h");
    let dpdk = find().ok_or_else(|| {
        format!("the feature dpdk needs DPDK {OLDEST} or newer: apt-get install libdpdk-dev (or: make dpdk)")
    })?;
    let output = PathBuf::from(env::var("OUT_DIR")?);
    let wrappers = output.join("wrappers");

    let mut flags: Vec<String> =
        dpdk.include_paths.iter().map(|path| format!("-I{}", path.display())).collect();
    flags.push("-DALLOW_EXPERIMENTAL_API".into());
    // DPDK's own flags ask for as much: its inline functions use SSE4.2.
    if env::var("CARGO_CFG_TARGET_ARCH")? == "x86_64" {
        flags.push("-march=corei7".into());
    }

    let mut bindings = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(&flags)
        .wrap_static_fns(true)
        .wrap_static_fns_path(&wrappers)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_debug(false)
        .generate_comments(false)
        .opaque_type("rte_(ether_hdr|arp_ipv4|arp_hdr|l2tpv2_.*|gtp_.*)")
        .use_core();
    for function in FUNCTIONS {
        bindings = bindings.allowlist_function(function);
    }
    for constant in CONSTANTS {
        bindings = bindings.allowlist_var(constant);
    }
    bindings.generate()?.write_to_file(output.join("bindings.rs"))?;

    let mut wrapped = cc::Build::new();
    wrapped.file(wrappers.with_extension("c")).warnings(false);
    flags.iter().for_each(|flag| {
        wrapped.flag(flag);
    });
    wrapped.include(env::var("CARGO_MANIFEST_DIR")?).try_compile("dpdk_wrappers")?;

    for path in &dpdk.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    // Folders of what DPDK itself is linked with may be among them.
    if let Some(own) = dpdk.link_paths.iter().find(|path| path.join("librte_eal.so").exists()) {
        println!("cargo::metadata=library_path={}", own.display());
    }
    // Drivers are not linked: EAL opens those that its folder of drivers has.
    for library in ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_eal"] {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    Ok(())
}
