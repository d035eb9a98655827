# pragma version 0.4.3
# pragma nonreentrancy off
"""
@title FixBook
@license Apache-2.0
@notice Remembers oracle fixes, proven by signed RedStone data packages, for all channels with the same oracle at once.
        Nobody owns it, anybody may prove, and of two proofs the one with more packages stands: the order of proofs and
        the choice of caller change nothing.
@dev docs/protocol.md, section 7. Python's twin is `fix_price` in channeld/core/packages.py.
     A signed package: points || timestampMs (6) || valueSize (4) || pointCount (3) || r (32) || s (32) || v (1);
     a point: feed (32) || value (valueSize). Packages stand one after another, in any order, and are read from the end.
"""

from modules import typed_data


event FixProven:
    oracle_hash: indexed(bytes32)
    feed: indexed(bytes32)
    t: indexed(uint64)
    value: uint256
    weight: uint256


# signers * samples at most
MAX_PACKAGES: constant(uint256) = 45
# 45 packages of eight feeds each, with values of 32 bytes
MAX_PACKAGE_BYTES: constant(uint256) = 26624
MAX_POINTS: constant(uint256) = 64
# timestampMs, valueSize, pointCount, signature
TRAILER: constant(uint256) = 78
SIGNATURE: constant(uint256) = 65
MAX_PRICE: constant(uint256) = 2**96 - 1
# values have 8 decimals, wads 18
VALUE_TO_WAD: constant(uint256) = 10**10

# (oracle hash, feed, time) -> weight << 96 | value
_fixes: HashMap[bytes32, uint256]


@external
@view
def fix(oracle_hash: bytes32, feed: bytes32, t: uint64) -> (uint256, uint256):
    """
    @notice The fix on record of a feed at a time, and its weight.
    @param oracle_hash hashStruct(Oracle).
    @param feed The feed id.
    @param t The fix's time, Unix seconds.
    @return The price (a wad) and the number of packages it was made of; zero and zero where none is proven.
    """
    entry: uint256 = self._fixes[keccak256(abi_encode(oracle_hash, feed, t))]
    return entry & MAX_PRICE, entry >> 96


@external
def prove_fix(
    oracle: typed_data.Oracle, feed: bytes32, t: uint64, packages: Bytes[MAX_PACKAGE_BYTES]
) -> (uint256, uint256):
    """
    @notice Records fix(feed, t): the floored mean of the medians of the samples that have a quorum.
    @dev A fix of strictly greater weight replaces the one on record. One of equal or lower weight changes nothing and
         does not revert: of two keepers that prove the same fix in one block neither fails, and a proof may be bundled
         with what follows it. An oracle that no channel could open with only ever writes under its own hash.
    @param oracle The oracle of the channels served.
    @param feed The feed id.
    @param t The fix's time, in seconds; not in the future.
    @param packages Signed packages for the samples at t - i * sampleGap, each with a value of the feed.
    @return The value (a wad) and the weight of the fix that stands after the call.
    """
    if block.timestamp < convert(t, uint256):
        raw_revert(method_id("TimeNotReached()"))
    count: uint256 = len(oracle.signers)
    samples: uint256 = convert(oracle.samples, uint256)
    if count == 0 or count * samples > MAX_PACKAGES or oracle.quorum == 0:
        raw_revert(method_id("InvalidOracle()"))

    # values in wads by sample and signer; zero where there is none
    values: uint256[MAX_PACKAGES] = empty(uint256[MAX_PACKAGES])
    end: uint256 = len(packages)
    for _i: uint256 in range(MAX_PACKAGES + 1):
        if end == 0:
            break
        # the trailer, whose counts say where the package starts
        if end < TRAILER + 33:
            raw_revert(method_id("MalformedPackage()"))
        header: uint256 = convert(extract32(packages, unsafe_sub(end, 97)), uint256)
        points: uint256 = header & (2**24 - 1)
        size: uint256 = (header >> 24) & (2**32 - 1)
        if points == 0 or points > MAX_POINTS or size == 0 or size > 32:
            raw_revert(method_id("MalformedPackage()"))
        step: uint256 = unsafe_add(32, size)
        length: uint256 = unsafe_add(unsafe_mul(points, step), TRAILER)
        if length > end:
            raw_revert(method_id("MalformedPackage()"))
        start: uint256 = unsafe_sub(end, length)

        # its points: each feed once, no value zero
        value: uint256 = 0
        highest: uint256 = 0
        at: uint256 = start
        before: uint256 = unsafe_sub(256, unsafe_mul(8, size))
        for i: uint256 in range(points, bound=MAX_POINTS):
            name: bytes32 = extract32(packages, at)
            if i != 0 and convert(name, uint256) <= highest:
                # not ascending: look for a repeat among those before
                other: uint256 = start
                for _: uint256 in range(i, bound=MAX_POINTS):
                    if extract32(packages, other) == name:
                        raw_revert(method_id("RepeatedFeed()"))
                    other = unsafe_add(other, step)
            else:
                highest = convert(name, uint256)
            at = unsafe_add(at, step)
            # the word that ends with the value; what stands before the value in it is shifted out
            word: uint256 = convert(extract32(packages, unsafe_sub(at, 32)), uint256)
            word = (word << before) >> before
            if word == 0:
                raw_revert(method_id("ZeroValue()"))
            if name == feed:
                value = MAX_PRICE if word > MAX_PRICE // VALUE_TO_WAD else word * VALUE_TO_WAD
        sample: uint256 = self._sample(
            (header >> 56) & (2**48 - 1),
            convert(t, uint256) * 1000,
            convert(oracle.sampleGap, uint256) * 1000,
            samples,
        )
        if value == 0:
            raw_revert(method_id("FeedMissing()"))
        # a statement of its own: its buffer, as long as all packages, is then the last thing in memory
        digest: bytes32 = keccak256(slice(packages, start, unsafe_sub(length, SIGNATURE)))
        signer: address = typed_data._recover(
            digest,
            convert(extract32(packages, unsafe_sub(end, 65)), uint256),
            convert(extract32(packages, unsafe_sub(end, 33)), uint256),
            convert(extract32(packages, unsafe_sub(end, 32)), uint256) & 255,
        )
        if signer == empty(address):
            raw_revert(method_id("InvalidSignature()"))
        index: uint256 = 0
        for known: address in oracle.signers:
            if known == signer:
                break
            index = unsafe_add(index, 1)
        if index == count:
            raw_revert(method_id("UnknownSigner()"))
        slot: uint256 = sample * count + index
        if values[slot] != 0:
            raw_revert(method_id("DuplicatedSigner()"))
        values[slot] = value
        end = start

    total: uint256 = 0
    used: uint256 = 0
    weight: uint256 = 0
    for sample: uint256 in range(samples, bound=MAX_PACKAGES):
        ordered: DynArray[uint256, 9] = []
        for index: uint256 in range(count, bound=9):
            value: uint256 = values[sample * count + index]
            if value == 0:
                continue
            # insertion, so that `ordered` ascends
            at: uint256 = len(ordered)
            ordered.append(value)
            for _: uint256 in range(9):
                if at == 0 or ordered[at - 1] <= value:
                    break
                ordered[at] = ordered[at - 1]
                at -= 1
            ordered[at] = value
        number: uint256 = len(ordered)
        if number < convert(oracle.quorum, uint256):
            continue
        total += (ordered[(number - 1) // 2] + ordered[number // 2]) // 2
        used += 1
        weight += number
    if used == 0 or 2 * used < samples:
        raw_revert(method_id("QuorumMissing()"))

    oracle_hash: bytes32 = typed_data._oracle_hash(oracle)
    key: bytes32 = keccak256(abi_encode(oracle_hash, feed, t))
    entry: uint256 = self._fixes[key]
    if weight <= entry >> 96:
        return entry & MAX_PRICE, entry >> 96
    price: uint256 = total // used
    self._fixes[key] = weight << 96 | price
    log FixProven(oracle_hash=oracle_hash, feed=feed, t=t, value=price, weight=weight)
    return price, weight


@internal
@pure
def _sample(timestamp: uint256, latest: uint256, gap: uint256, samples: uint256) -> uint256:
    """
    @notice Which sample a package's time belongs to, the latest being 0; refused where to none. All in milliseconds.
    """
    if timestamp == latest:
        return 0
    if timestamp > latest or gap == 0:
        raw_revert(method_id("OtherTime()"))
    back: uint256 = latest - timestamp
    if back % gap != 0 or back // gap >= samples:
        raw_revert(method_id("OtherTime()"))
    return back // gap
