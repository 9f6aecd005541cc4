//! Captures of the wire in pcap format, for any packet analyser.

use std::io::{self, Write};

use libos::Instant;
use libos::runtime::Medium;

use crate::{Observer, PortId, Sighting, Stage};

/// Marks a pcap file whose timestamps count nanoseconds.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
const LINKTYPE_RAW_IP: u32 = 101;
const SNAP_LEN: u32 = 256 << 10;

/// Writes frames with their times, one record after the other.
#[derive(Debug)]
pub struct PcapWriter<W> {
    output: W,
}

impl<W: Write> PcapWriter<W> {
    /// Begins a capture of frames that begin as `medium` says.
    ///
    /// # Errors
    /// When the file's header cannot be written.
    pub fn new(medium: Medium, mut output: W) -> io::Result<Self> {
        let link_type = match medium {
            Medium::Ethernet => LINKTYPE_ETHERNET,
            Medium::Ip => LINKTYPE_RAW_IP,
        };
        let mut header = [0; 24];
        header[0..4].copy_from_slice(&MAGIC_NANOSECONDS.to_le_bytes());
        header[4..6].copy_from_slice(&2_u16.to_le_bytes());
        header[6..8].copy_from_slice(&4_u16.to_le_bytes());
        header[16..20].copy_from_slice(&SNAP_LEN.to_le_bytes());
        header[20..24].copy_from_slice(&link_type.to_le_bytes());
        output.write_all(&header)?;
        Ok(Self { output })
    }

    /// Adds a frame, of which 256 KiB are kept.
    ///
    /// # Errors
    /// When the output does not take it.
    pub fn write(&mut self, time: Instant, frame: &[u8]) -> io::Result<()> {
        let nanos = time.as_nanos();
        let captured = &frame[..frame.len().min(SNAP_LEN as usize)];
        let fields =
            [nanos / 1_000_000_000, nanos % 1_000_000_000, captured.len() as u64, frame.len() as u64];
        let mut header = [0; 16];
        for (bytes, field) in header.chunks_exact_mut(4).zip(fields) {
            bytes.copy_from_slice(&u32::try_from(field).unwrap_or(u32::MAX).to_le_bytes());
        }
        self.output.write_all(&header)?;
        self.output.write_all(captured)
    }
}

/// Writes what one port sends and is given, as a capture on that host would show it.
///
/// Every record goes to the writer at once, so that a capture is whole up to the moment of a panic.
#[derive(Debug)]
pub struct PcapObserver<W> {
    port: PortId,
    capture: PcapWriter<W>,
    failure: Option<io::ErrorKind>,
}

impl<W: Write> PcapObserver<W> {
    /// A capture at `port`.
    ///
    /// # Errors
    /// When the file's header cannot be written.
    pub fn new(port: PortId, medium: Medium, output: W) -> io::Result<Self> {
        Ok(Self { port, capture: PcapWriter::new(medium, output)?, failure: None })
    }
}

impl<W: Write> Observer for PcapObserver<W> {
    /// A record that cannot be written ends the capture: a run is worth more than its record.
    fn frame(&mut self, sighting: &Sighting<'_>) {
        let ours = match sighting.stage {
            Stage::Sent(port) | Stage::Delivered(port) => port == self.port,
            Stage::Lost(..) => false,
        };
        if ours && self.failure.is_none() {
            let written = self.capture.write(sighting.time, sighting.bytes);
            self.failure = written.err().map(|error| error.kind());
        }
    }
}

#[cfg(test)]
mod tests {
    use libos::runtime::RxChecksum;

    use super::*;

    #[test]
    fn a_capture_holds_the_frames_of_its_port_with_nanosecond_times() {
        let port = PortId::from_index(0);
        let mut file = Vec::new();
        let mut capture = PcapObserver::new(port, Medium::Ethernet, &mut file).unwrap();
        for stage in [
            Stage::Sent(port),
            Stage::Sent(PortId::from_index(1)),
            Stage::Lost(port, crate::Loss::Random),
            Stage::Delivered(port),
        ] {
            capture.frame(&Sighting {
                time: Instant::from_nanos(3_000_000_007),
                stage,
                medium: Medium::Ethernet,
                bytes: &[1, 2, 3, 4, 5],
                checksum: RxChecksum::Unknown,
            });
        }
        let record = [[3, 0, 0, 0], [7, 0, 0, 0], [5, 0, 0, 0], [5, 0, 0, 0]].concat();
        let record = [record, vec![1, 2, 3, 4, 5]].concat();
        assert_eq!(file[..8], [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(file[20..24], [1, 0, 0, 0]);
        assert_eq!(file[24..], [record.clone(), record].concat());
    }
}
