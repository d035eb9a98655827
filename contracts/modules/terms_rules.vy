# pragma version 0.4.3
"""
@title What `open` refuses
@license Apache-2.0
@notice Terms that could not be enforced, each refused by its own error. channeld/core/terms.py refuses the same,
        but for what needs a chain to see: the token's code and its decimals. Stateless.
"""

from modules import typed_data

ONE: constant(uint256) = 10**18
# signers * samples at most
MAX_PACKAGES: constant(uint256) = 45


@internal
@view
def _check(terms: typed_data.Terms):
    """
    @notice Refuses terms that could not be enforced.
    """
    if terms.a.signer == empty(address) or terms.b.signer == empty(address):
        raw_revert(method_id("ZeroSigner()"))
    if terms.a.signer == terms.b.signer:
        raw_revert(method_id("EqualSigners()"))
    if terms.a.payout == empty(address) or terms.b.payout == empty(address):
        raw_revert(method_id("ZeroPayout()"))
    if terms.sequencer > 1:
        raw_revert(method_id("InvalidSequencer()"))
    if convert(terms.haircut, uint256) > ONE:
        raw_revert(method_id("HaircutAboveOne()"))
    if convert(terms.initialFactor, uint256) < ONE:
        raw_revert(method_id("InitialFactorBelowOne()"))
    if terms.challengePeriod == 0:
        raw_revert(method_id("ZeroChallengePeriod()"))
    if terms.curePeriod == 0:
        raw_revert(method_id("ZeroCurePeriod()"))
    if terms.curePeriod > terms.challengePeriod:
        raw_revert(method_id("CurePeriodAboveChallengePeriod()"))

    # an oracle whose fixes can be proven, and not by a minority
    signers: uint256 = len(terms.oracle.signers)
    quorum: uint256 = convert(terms.oracle.quorum, uint256)
    samples: uint256 = convert(terms.oracle.samples, uint256)
    tick: uint256 = convert(terms.oracle.tick, uint256)
    gap: uint256 = convert(terms.oracle.sampleGap, uint256)
    grace: uint256 = convert(terms.oracle.grace, uint256)
    cure: uint256 = convert(terms.curePeriod, uint256)
    if quorum > signers:
        raw_revert(method_id("QuorumAboveSigners()"))
    if 2 * quorum <= signers:
        raw_revert(method_id("QuorumNoMajority()"))
    previous: uint256 = 0
    for signer: address in terms.oracle.signers:
        if convert(signer, uint256) <= previous:
            raw_revert(method_id("OracleSignersUnsorted()"))
        previous = convert(signer, uint256)
    if samples == 0:
        raw_revert(method_id("ZeroSamples()"))
    if signers * samples > MAX_PACKAGES:
        raw_revert(method_id("TooManyPackages()"))
    if tick == 0:
        raw_revert(method_id("ZeroTick()"))
    if gap % tick != 0:
        raw_revert(method_id("SampleGapNotTicks()"))
    if gap == 0 and samples > 1:
        raw_revert(method_id("ZeroSampleGap()"))
    if samples * gap > cure:
        raw_revert(method_id("SamplesBeyondCurePeriod()"))
    if grace == 0:
        raw_revert(method_id("ZeroGrace()"))
    if grace < cure + tick:
        raw_revert(method_id("GraceTooShort()"))

    # markets, each feed once
    if len(terms.markets) == 0:
        raw_revert(method_id("NoMarkets()"))
    previous = 0
    for market: typed_data.Market in terms.markets:
        if market.feed == empty(bytes32):
            raw_revert(method_id("ZeroFeed()"))
        if convert(market.feed, uint256) <= previous:
            raw_revert(method_id("MarketsUnsorted()"))
        previous = convert(market.feed, uint256)
        if convert(market.volDown, uint256) > ONE:
            raw_revert(method_id("VolDownAboveOne()"))
        if market.feed == terms.collateralFeed and terms.haircut < market.priceScan:
            raw_revert(method_id("HaircutBelowPriceScan()"))

    # the token, as it says itself
    token: address = terms.collateral
    decimals: uint8 = terms.decimals
    if not token.is_contract:
        raw_revert(method_id("CollateralWithoutCode()"))
    if decimals < 6 or decimals > 18:
        raw_revert(method_id("DecimalsOutOfRange()"))
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        token,
        method_id("decimals()"),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not success or len(answer) != 32 or convert(answer, uint256) != convert(decimals, uint256):
        raw_revert(method_id("DecimalsMismatch()"))
