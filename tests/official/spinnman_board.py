"""Holds a board against the official host library, unmodified: boot, discovery, memory, routes, tags, applications, signals.

    spidnn board --machine 'virtual:spin5?fidelity=cycle' --listen 127.0.60.1 --bmp 127.0.60.9 &
    python tests/official/spinnman_board.py --version 5 --board 127.0.60.1 --bmp 127.0.60.9

A board that runs only programs of its own kind has to refuse the official ones as --refuses says. It needs SpiNNMan, and for the checks of applications SpiNNFrontEndCommon (with its binaries); the ports are the official ones,
which the library has built in. Nothing here knows that a board is virtual. One line is printed for each check; the exit
status is 0 if all passed, 1 if one failed, 3 if the library is not there.
"""

import argparse
import hashlib
import importlib.util
import os
import random
import socket
import struct
import sys
import time
import traceback

try:
    from spinn_machine import CoreSubset, CoreSubsets, MulticastRoutingEntry, RoutingEntry
    from spinn_machine.tags import IPTag, ReverseIPTag
    from spinn_utilities.config_holder import set_config
    from spinnman.config_setup import unittest_setup
    from spinnman.connections.udp_packet_connections import BMPConnection, SCAMPConnection
    from spinnman.data.spinnman_data_writer import SpiNNManDataWriter
    from spinnman.exceptions import SpinnmanException
    from spinnman.messages.scp.enums import LEDAction, PowerCommand, SCPResult, Signal
    from spinnman.messages.scp.impl import FillRequest, GetVersion, SetPower, WriteFPGARegister
    from spinnman.messages.sdp import SDPFlag, SDPHeader, SDPMessage
    from spinnman.model import DiagnosticFilter
    from spinnman.model.bmp_connection_data import BMPConnectionData
    from spinnman.model.enums import (
        CPUState, DiagnosticFilterDefaultRoutingStatus, DiagnosticFilterPacketType, DiagnosticFilterSource, UserRegister)
    from spinnman.processes import FixedConnectionSelector, SendSingleCommandProcess
    from spinnman.transceiver import create_transceiver_from_hostname
except ImportError as error:
    print(f"not run: {error}")
    sys.exit(3)

BOOT_ATTEMPTS = 4
ATTEMPTS_BUSY = 8
SDRAM = 0x6300_0000
SYSTEM_RAM = 0xE500_4000
VCPU = 0xE500_7000
APP_ID = 30
KEY = 0x2000


def same(got, expected, what=""):
    """Fails unless both are equal."""
    if got != expected:
        raise AssertionError(f"{what or 'value'}: {got!r}, expected {expected!r}")


class Board:
    """A machine and what has been learnt of it."""

    def __init__(self, options):
        self.version = options.version
        self.addresses = options.board
        self.bmp = options.bmp
        self.refuses = options.refuses
        self.bmp_boards = list(range(len(options.board)))
        self.writer = SpiNNManDataWriter.mock()
        self.txrx = None
        self.managing = None
        self.machine = None

    def chips(self):
        """A few chips: near and far."""
        all_chips = sorted(self.machine.chip_coordinates)
        return [all_chips[0], all_chips[len(all_chips) // 2], all_chips[-1]]

    def counted(self, chips):
        """Those of these chips that their board's Ethernet chip counts. SC&MP 4.0.0 adds places on the board to the address of
        that chip and does not wrap, so that it leaves out what lies beyond the edge of a machine that wraps around."""
        chips = [self.machine.get_chip_at(x, y) for x, y in chips]
        return [(c.x, c.y) for c in chips if c.x >= c.nearest_ethernet_x and c.y >= c.nearest_ethernet_y]

    def n_idle_counted(self):
        """Cores that the count finds idle while nothing is loaded."""
        return sum(self.machine.get_chip_at(x, y).n_processors - 1 for x, y in self.counted(self.machine.chip_coordinates))

    def wait(self, cores, state):
        """Until these cores of the application are in a state: looked at one by one where the count leaves some out."""
        self.txrx.wait_for_cores_to_be_in_state(cores, APP_ID, state, timeout=10, counts_between_full_check=1)

    def call(self, request):
        """One request to the monitors."""
        return SendSingleCommandProcess(self.txrx.get_scamp_connection_selector()).execute(request)

    def manager(self):
        """A transceiver for the management processor."""
        if not self.managing:
            data = BMPConnectionData(self.bmp, self.bmp_boards, None)
            self.managing = create_transceiver_from_hostname(
                self.addresses[0], bmp_connection_data=data, extended=True, ensure_board_is_ready=False)
        return self.managing

    def command_bmp(self, request):
        """One request to the management processor that is only acknowledged: in SpiNNMan 7.4.1 the class for such a reply is
        abstract by mistake, so that its own processes fail whatever the answer."""
        connection = next(c for c in self.manager().get_connections() if isinstance(c, BMPConnection))
        request.scp_request_header.sequence = 77
        connection.send(connection.get_scp_data(request))
        result, sequence, _, _ = connection.receive_scp_response(10)
        same((result, sequence), (SCPResult.RC_OK, 77), "result and sequence number")


# ---- The checks, in the order in which they run. Each takes a board; what it returns is printed.


def boot(board):
    """The library finds nobody, sends its image, and waits until the monitor answers."""
    # The library gives up after some seconds of wall time; a virtual machine on a busy computer may want more.
    for attempt in range(BOOT_ATTEMPTS):
        try:
            board.txrx = create_transceiver_from_hostname(board.addresses[0], extended=True)
            break
        except SpinnmanException:
            if attempt + 1 == BOOT_ATTEMPTS:
                raise
    board.writer.set_transceiver(board.txrx)
    # What the library waits for is the root; on boards of 48 chips the rest comes up a little later.
    board.txrx.discover_scamp_connections()


def connections(board):
    """Each board is reached by its own address."""
    reached = {c.remote_ip_address for c in board.txrx.get_connections() if isinstance(c, SCAMPConnection)}
    same(reached, set(board.addresses), "boards reached")
    return ", ".join(sorted(reached))


def versions(board):
    """The monitor of each corner and an idle core say who they are."""
    info = board.call(GetVersion(0, 0, 0)).version_info
    same((info.name, info.version_number, info.x, info.y, info.p), ("SC&MP", (4, 0, 0), 0, 0, 0))
    idle = board.call(GetVersion(1, 1, 3)).version_info
    same((idle.name, idle.x, idle.y, idle.p), ("SARK", 1, 1, 3))
    return f"{info.name} {info.version_string} on {info.hardware}, {idle.name} {idle.version_string}"


def machine(board):
    """Chips, links, cores and Ethernet chips, as the library models a whole machine."""
    board.machine = board.txrx.get_machine_details()
    board.writer.set_machine(board.machine)
    chips = 4 if board.version == 3 else 48 * len(board.addresses)
    same(board.machine.n_chips, chips, "chips")
    same({c.ip_address for c in board.machine.ethernet_connected_chips}, set(board.addresses), "Ethernet chips")
    cores = sum(c.n_processors for c in board.machine.chips)
    assert 17 * chips <= cores <= 18 * chips, f"{cores} cores"
    links = sum(1 for c in board.machine.chips for _ in c.router.links)
    # Both directions. SC&MP 4.0.0 by itself switches off some links that lead out of a board at chips (0,0), (1,0) and (3,0):
    # of the 16 of four chips two, of the 864 of three boards 18.
    same(links, {4: 14, 48: 240, 144: 846}[chips], "links")
    return str(board.machine)


def memory(board):
    """SDRAM and system RAM of three chips: odd lengths, one word, many packets."""
    for x, y in board.chips():
        for address, length in [(SDRAM, 4), (SDRAM + 64, 1), (SDRAM + 0x101, 1023), (SDRAM + 0x1000, 20_000), (SYSTEM_RAM, 500)]:
            data = random.Random(address + length).randbytes(length)
            board.txrx.write_memory(x, y, address, data)
            same(bytes(board.txrx.read_memory(x, y, address, length)), data, f"chip {x},{y} at {address:#x}")
        board.txrx.write_memory(x, y, SDRAM, 0xDEAD_BEEF)
        same(board.txrx.read_word(x, y, SDRAM), 0xDEAD_BEEF)
        count, total = board.txrx.write_memory(x, y, SDRAM, bytearray(struct.pack("<III", 1, 2, 3)), get_sum=True)
        same((count, total), (12, 6), "bytes and sum")


def local_memory(board):
    """Data memory of an idle core, by way of that core."""
    data = bytes(range(200))
    board.txrx.write_memory(1, 0, 0x0040_8000, data, cpu=4)
    same(bytes(board.txrx.read_memory(1, 0, 0x0040_8000, 200, cpu=4)), data)


def fill(board):
    """A fill by the monitor."""
    board.call(FillRequest(1, 1, SDRAM + 0x10000, 0xA5A5_1234, 4096))
    same(bytes(board.txrx.read_memory(1, 1, SDRAM + 0x10000, 4096)), struct.pack("<I", 0xA5A5_1234) * 1024)


def software_errors(board):
    """What the root's monitor has counted: the half-word at 0x3a of its block. It may be busy for a while before it answers."""
    for attempt in range(ATTEMPTS_BUSY):
        try:
            return struct.unpack("<H", bytes(board.txrx.read_memory(0, 0, VCPU + 0x3A, 2)))[0]
        except SpinnmanException:
            if attempt + 1 == ATTEMPTS_BUSY:
                raise


def flood_memory(board):
    """Data to all chips by flood fill."""
    data = random.Random(5).randbytes(1000)
    said = None
    try:
        board.txrx.write_memory_flood(SDRAM + 0x20000, data)
    except SpinnmanException:
        # The monitor is busy with a block for as long as the library wants its packets to be apart, 168 us a word and link. On
        # a chip with more links than a single board's (0, 0) has, its events run out meanwhile, and SC&MP 4.0.0 loses the
        # answer; it counts that.
        errors = software_errors(board)
        if len(board.addresses) == 1 or not errors:
            raise
        said = f"loaded, but the monitor has lost its answers ({errors} software errors)"
    time.sleep(0.5)
    for x, y in board.chips():
        same(bytes(board.txrx.read_memory(x, y, SDRAM + 0x20000, 1000)), data, f"chip {x},{y}")
    return said


def neighbour_memory(board):
    """A chip's memory by way of its neighbour's link 0 (east)."""
    board.txrx.write_memory(1, 0, SDRAM, 0x0123_4567)
    data = board.txrx.read_neighbour_memory(0, 0, 0, SDRAM, 4)
    same(struct.unpack("<I", bytes(data))[0], 0x0123_4567)
    board.txrx.write_neighbour_memory(0, 0, 0, SDRAM, 0x89AB_CDEF)
    same(board.txrx.read_word(1, 0, SDRAM), 0x89AB_CDEF)


def sdram(board):
    """Memory is handed out, found in the heap with its owner, and given back."""
    x, y = board.chips()[-1]
    free = max(e.size for e in board.txrx.get_heap(x, y) if e.is_free)
    blocks = [board.txrx.malloc_sdram(x, y, size, APP_ID, tag) for size, tag in [(1000, 1), (20_000, 2), (1 << 20, 0)]]
    assert blocks == sorted(set(blocks)), blocks
    owned = [e for e in board.txrx.get_heap(x, y) if not e.is_free and e.app_id == APP_ID]
    same([e.tag for e in owned], [1, 2, 0], "tags in the heap")
    board.txrx.free_sdram(x, y, blocks[1])
    same(len([e for e in board.txrx.get_heap(x, y) if not e.is_free and e.app_id == APP_ID]), 2, "blocks left")
    try:
        board.txrx.malloc_sdram(x, y, 1 << 28, APP_ID)
        raise AssertionError("more than there is was handed out")
    except SpinnmanException:
        pass
    board.txrx.stop_application(APP_ID)
    time.sleep(0.2)
    same(max(e.size for e in board.txrx.get_heap(x, y) if e.is_free), free, "largest block after the application's end")


def routes(board):
    """Routes are loaded, read, and cleared."""
    x, y = board.chips()[1]
    entries = [
        MulticastRoutingEntry(i << 8, 0xFFFF_FF00, RoutingEntry(processor_ids=[1 + i % 16], link_ids=[i % 6]))
        for i in range(100)]
    before = len(board.txrx.get_multicast_routes(x, y))
    board.txrx.load_multicast_routes(x, y, entries, APP_ID)
    read = board.txrx.get_multicast_routes(x, y, APP_ID)
    key = lambda e: (e.key, e.mask, sorted(e.processor_ids), sorted(e.link_ids))
    same(sorted(map(key, read)), sorted(map(key, entries)), "routes")
    fixed = RoutingEntry(processor_ids=[3], link_ids=[1, 2])
    board.txrx.load_fixed_route(x, y, fixed, APP_ID)
    got = board.txrx.read_fixed_route(x, y, APP_ID)
    same((sorted(got.processor_ids), sorted(got.link_ids)), ([3], [1, 2]), "fixed route")
    board.txrx.clear_multicast_routes((x, y))
    same(len(board.txrx.get_multicast_routes(x, y, APP_ID)), 0, "routes left")
    return f"100 routes beside {before}"


def too_many_routes(board):
    """More routes than the table has are refused."""
    x, y = board.chips()[0]
    entries = [MulticastRoutingEntry(i, 0xFFFF_FFFF, RoutingEntry(processor_ids=[1], link_ids=[])) for i in range(1024)]
    try:
        board.txrx.load_multicast_routes(x, y, entries, APP_ID)
    except SpinnmanException:
        return
    raise AssertionError("1024 routes were taken, with the monitor's own in the table")


def diagnostics(board):
    """Router counters are read, filters set and read back, counters cleared."""
    x, y = board.chips()[0]
    counters = board.txrx.get_router_diagnostics(x, y)
    assert counters.n_local_peer_to_peer_packets + counters.n_external_peer_to_peer_packets > 0, "no P2P packets counted"
    kind = DiagnosticFilter(
        enable_interrupt_on_counter_event=False, match_emergency_routing_status_to_incoming_packet=False, destinations=[],
        sources=[DiagnosticFilterSource.LOCAL], payload_statuses=[],
        default_routing_statuses=[DiagnosticFilterDefaultRoutingStatus.DEFAULT_ROUTED], emergency_routing_statuses=[],
        packet_types=[DiagnosticFilterPacketType.MULTICAST])
    board.txrx.set_router_diagnostic_filter(x, y, 13, kind)
    same(board.txrx.get_router_diagnostic_filter(x, y, 13).filter_word, kind.filter_word, "filter")
    board.txrx.clear_router_diagnostic_counters((x, y))
    after = board.txrx.get_router_diagnostics(x, y)
    assert after.n_external_peer_to_peer_packets < max(1, counters.n_external_peer_to_peer_packets), "not cleared"
    board.txrx.reset_routing()
    return f"monitor {after.mon}, wait1 {after.wait_1:#x}, wait2 {after.wait_2:#x}"


def tags(board):
    """IP tags and reverse IP tags are set, read, and cleared on each board."""
    for address in board.addresses:
        xy = next((c.x, c.y) for c in board.machine.ethernet_connected_chips if c.ip_address == address)
        board.txrx.set_ip_tag(IPTag(address, *xy, 3, "127.0.0.1", 4321, strip_sdp=True))
        board.txrx.set_reverse_ip_tag(ReverseIPTag(address, 4, 45_678, *xy, 5, sdp_port=2))
    # From 8 on they are the monitor's own, for replies, which go away by themselves.
    named = lambda: [t for t in board.txrx.get_tags() if t.tag < 8]
    found = named()
    forward = {(t.board_address, t.tag, t.ip_address, t.port, t.strip_sdp) for t in found if isinstance(t, IPTag)}
    same(forward, {(a, 3, "127.0.0.1", 4321, True) for a in board.addresses}, "IP tags")
    reverse = {(t.board_address, t.tag, t.port, t.destination_p, t.sdp_port) for t in found if isinstance(t, ReverseIPTag)}
    same(reverse, {(a, 4, 45_678, 5, 2) for a in board.addresses}, "reverse IP tags")
    for address in board.addresses:
        board.txrx.clear_ip_tag(3, address)
        board.txrx.clear_ip_tag(4, address)
    same(named(), [], "tags left")


def leds(board):
    """The LEDs of a chip are switched by the monitor."""
    on_off_invert = (1, 0, 2)
    for state in on_off_invert:
        board.txrx.set_leds(0, 0, 0, dict.fromkeys(range(4), state))


def core_states(board):
    """All cores but the monitors' idle, by their blocks and by count."""
    infos = board.txrx.get_cpu_infos()
    n_cores = sum(c.n_processors for c in board.machine.chips)
    same(len(infos), n_cores, "cores")
    idle = infos.infos_for_state(CPUState.IDLE)
    same(len(idle), n_cores - board.machine.n_chips, "idle cores")
    same(board.txrx.get_core_state_count(0, CPUState.IDLE), board.n_idle_counted(), "idle cores counted")
    info = infos.get_cpu_info(0, 0, 0)
    same((info.state, info.application_name), (CPUState.RUNNING, "scamp-3"), "monitor")
    return f"{len(idle)} idle"


def users(board):
    """The user words of a core."""
    for number, user in enumerate([UserRegister.USER_0, UserRegister.USER_3]):
        board.txrx.write_user(0, 1, 2, user, 1000 + number)
        same(board.txrx.read_user(0, 1, 2, user), 1000 + number)
    same(board.txrx.get_cpu_infos(CoreSubsets([CoreSubset(0, 1, [2])])).get_cpu_info(0, 1, 2).user[0], 1000)


def clock(board):
    """The monitors' clocks run, and none drifts by more than crystals do."""
    drift = max(abs(board.txrx.get_clock_drift(x, y)) for x, y in board.chips())
    assert drift < 1e-3, f"drift {drift}"
    return f"{drift:.2g}"


def binary(name):
    """The official binary of this name, or None."""
    spec = importlib.util.find_spec("spinn_front_end_common")
    if spec is None:
        return None
    path = os.path.join(spec.submodule_search_locations[0], "common_model_binaries", name)
    return path if os.path.exists(path) else None


def region_data(address, regions):
    """A table of regions and the regions (number -> words), as the official front end lays them out at an address."""
    table = [0] * (2 + 3 * 32)
    table[:2] = [0xAD13_0AD6, 0x0001_0000]
    body = []
    for number, words in regions.items():
        total = sum(words) & 0xFFFF_FFFF
        table[2 + 3 * number:5 + 3 * number] = [address + 4 * (len(table) + len(body)), total, len(words)]
        body += words
    return struct.pack(f"<{len(table) + len(body)}I", *table, *body)


def system_region(file):
    """The region that all simulations have: which binary, a time step of a millisecond, the SDP port for run control."""
    digest = hashlib.md5(file[:-len(".aplx")].encode()).hexdigest()[:8]
    return [int(digest, 16), 1000, 3]


SOURCE, GATHERER = "reverse_iptag_multicast_source.aplx", "live_packet_gather.aplx"
SOURCE_CORE, GATHERER_CORE = 1, 2


def targets(board, core):
    """The same core of a few chips."""
    return CoreSubsets([CoreSubset(x, y, [core]) for x, y in board.chips()])


def application(board):
    """Official binaries by flood fill, held at the barrier, started, paused, and made to run by the signal of their kind."""
    source, gatherer = binary(SOURCE), binary(GATHERER)
    if not source or not gatherer:
        return "not run: no SpiNNFrontEndCommon"
    provenance = [0] * 64
    wanted = {
        # No prefix; keys not checked; key and mask; no send buffer; SDP port 1; no offset.
        SOURCE_CORE: (source, {0: None, 1: [0, 0, 0, 0, 1, KEY, 0xFFFF_FF00, 0, 0, 0, 0, 1, 0], 2: [1, 0, 0, 0],
                               4: provenance}),
        # No prefix; 32-bit keys without payload; tag 1 at (0, 0); all packets; whole keys, not translated.
        GATHERER_CORE: (gatherer, {0: None, 1: [0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0xFFFF_FFFF, 0, 0], 2: provenance}),
    }
    for core, (path, regions) in wanted.items():
        regions[0] = system_region(os.path.basename(path))
        for x, y in board.chips():
            address = board.txrx.malloc_sdram(x, y, 4096, APP_ID, core)
            board.txrx.write_memory(x, y, address, region_data(address, regions))
            board.txrx.write_user(x, y, core, UserRegister.USER_0, address)
        board.txrx.execute_flood(targets(board, core), path, APP_ID, wait=True)
    n_cores = 2 * len(board.chips())
    n_counted = 2 * len(board.counted(board.chips()))
    both = targets(board, SOURCE_CORE)
    both.add_core_subsets(targets(board, GATHERER_CORE).core_subsets)
    if board.refuses:
        stopped = board.txrx.get_cpu_infos(both).infos_for_state(CPUState.RUN_TIME_EXCEPTION)
        same(len(stopped), n_cores, "cores that refuse")
        assert all(board.refuses in text.iobuf for text in board.txrx.get_iobuf(both)), "no reason is given"
        return f"refused on {n_cores} cores"
    board.wait(both, CPUState.READY)
    same(board.txrx.get_core_state_count(APP_ID, CPUState.READY), n_counted, "cores at the barrier")
    board.txrx.send_signal(APP_ID, Signal.START)
    board.wait(both, CPUState.PAUSED)
    infos = board.txrx.get_cpu_infos(both)
    names = {infos.get_cpu_info(*xyp).application_name for xyp in infos}
    same(names, {"reverse_iptag_m", "live_packet_gat"}, "names of the applications")
    return f"{n_cores} cores paused"


def run_and_talk(board):
    """A run of the applications: a datagram through a reverse tag becomes packets, and those a datagram by an IP tag."""
    if board.refuses or not binary(SOURCE):
        return "not run: applications are refused" if board.refuses else "not run: no SpiNNFrontEndCommon"
    address = board.addresses[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("127.0.0.1" if address.startswith("127.") else "", 0))
        host.settimeout(5)
        board.txrx.set_ip_tag(IPTag(address, 0, 0, 1, "localhost", host.getsockname()[1], strip_sdp=True))
        board.txrx.set_reverse_ip_tag(ReverseIPTag(address, 2, 12_000, 0, 0, SOURCE_CORE, sdp_port=1))
        route = RoutingEntry(processor_ids=[GATHERER_CORE], link_ids=[])
        board.txrx.load_multicast_routes(0, 0, [MulticastRoutingEntry(KEY, 0xFFFF_FF00, route)], APP_ID)
        for core in (SOURCE_CORE, GATHERER_CORE):
            for x, y in board.chips():
                header = SDPHeader(
                    flags=SDPFlag.REPLY_NOT_EXPECTED, destination_port=3, destination_cpu=core, destination_chip_x=x,
                    destination_chip_y=y)
                # Run time 100 000 steps, not for ever, from step 0.
                body = struct.pack("<HHIIII", 7, 0, 100_000, 0, 0, 0)
                # Left to itself the library takes any board, and boards have no routes to most chips of others.
                message = SDPMessage(header, body)
                board.txrx.send_sdp_message(message, board.txrx.get_scamp_connection_selector().get_next_connection(message))
        every = targets(board, SOURCE_CORE)
        every.add_core_subsets(targets(board, GATHERER_CORE).core_subsets)
        board.wait(every, CPUState.SYNC0)
        board.txrx.control_sync(True)
        board.txrx.send_signal(APP_ID, Signal.SYNC0)
        board.wait(every, CPUState.RUNNING)
        board.txrx.control_sync(False)
        host.sendto(struct.pack("<BBII", 2, 0x08, KEY + 7, KEY + 9), (address, 12_000))
        keys = []
        while len(keys) < 2:
            data = host.recv(1500)
            same(data[1] & 0xFC, 0x08, "kind of message")
            keys += struct.unpack_from(f"<{data[0]}I", data, 2)
        same(sorted(keys), [KEY + 7, KEY + 9], "keys")
        counters = board.txrx.get_router_diagnostics(0, 0)
        assert counters.n_local_multicast_packets >= 2, "local packets counted"
        board.txrx.clear_ip_tag(1, address)
        board.txrx.clear_ip_tag(2, address)
    return "two keys came back"


def iobuf(board):
    """What the applications have printed."""
    if board.refuses or not binary(SOURCE):
        return "not run: applications are refused" if board.refuses else "not run: no SpiNNFrontEndCommon"
    texts = [b.iobuf for b in board.txrx.get_iobuf(targets(board, SOURCE_CORE))]
    same(len(texts), len(board.chips()), "buffers")
    # Binaries print numbers of messages with their arguments; the first says what the table of regions starts with.
    assert all("ad130ad6" in text.split("\n")[0] for text in texts), texts
    return f"{texts[0].count(chr(10))} lines"


def stop(board):
    """The application stops: its cores idle, its memory and routes free."""
    board.txrx.stop_application(APP_ID)
    time.sleep(0.5)
    same(board.txrx.get_core_state_count(0, CPUState.IDLE), board.n_idle_counted(), "idle cores")
    same(len(board.txrx.get_multicast_routes(0, 0, APP_ID)), 0, "routes left")
    assert not [e for e in board.txrx.get_heap(0, 0) if not e.is_free and e.app_id == APP_ID], "memory left"


def management(board):
    """The management processor: version, readings, LEDs, FPGA registers."""
    if not board.bmp:
        return "not run: no --bmp"
    version = board.manager().read_bmp_version(0)
    same(version.name, "BC&MP")
    readings = board.manager().read_adc_data(0)
    assert 1.1 < readings.voltage_1_2a < 1.3 and 11 < readings.voltage_supply < 13, readings
    board.manager().set_led(7, LEDAction.TOGGLE, 0)
    board.command_bmp(WriteFPGARegister(0, 0x4_0010, 0x1234, 0))
    same(board.manager().read_fpga_register(0, 0x4_0010, 0), 0x1234)
    return f"{version.name} {version.version_string} on {version.hardware}"


def power(board):
    """Power off and on: the boards are blank, and the library boots them again."""
    if not board.bmp:
        return "not run: no --bmp"
    board.command_bmp(SetPower(PowerCommand.POWER_OFF, board.bmp_boards))
    connection = next(c for c in board.txrx.get_connections() if isinstance(c, SCAMPConnection))
    try:
        SendSingleCommandProcess(FixedConnectionSelector(connection), n_retries=0).execute(GetVersion(0, 0, 0))
        raise AssertionError("a monitor answers without power")
    except SpinnmanException:
        pass
    board.command_bmp(SetPower(PowerCommand.POWER_ON, board.bmp_boards))
    boot_again = create_transceiver_from_hostname(board.addresses[0], extended=True)
    boot_again.close()
    same(board.call(GetVersion(0, 0, 0)).version_info.name, "SC&MP")


CHECKS = [
    boot, connections, versions, machine, memory, local_memory, fill, flood_memory, neighbour_memory, sdram, routes,
    too_many_routes, diagnostics, tags, leds, core_states, users, clock, application, run_and_talk, iobuf, stop, management, power]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", type=int, choices=(3, 5), required=True, help="of the boards: 3 (4 chips) or 5 (48)")
    parser.add_argument("--board", action="append", required=True, help="address; the first is the one to boot; again for more")
    parser.add_argument("--bmp", help="address of the management processor")
    parser.add_argument("--refuses", metavar="TEXT", help="the board runs no official applications, and its cores' texts say this")
    parser.add_argument("--verbose", action="store_true", help="print tracebacks")
    options = parser.parse_args()
    unittest_setup()
    set_config("Machine", "version", str(options.version))
    board = Board(options)
    failed = 0
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        begin = time.monotonic()
        try:
            said = check(board)
            result = said if said and said.startswith("not run") else "ok" + (f": {said}" if said else "")
        except Exception as error:  # whatever the library makes of an answer
            failed += 1
            result = f"FAILED: {type(error).__name__}: {error}"
            if options.verbose:
                traceback.print_exc()
        print(f"{name}: {result} ({time.monotonic() - begin:.1f} s)", flush=True)
        if failed and check in (boot, machine):
            break
    print(f"{failed} failed" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
