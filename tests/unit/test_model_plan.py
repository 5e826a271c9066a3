"""What happens to vector spaces when a model changes: the plan, and a machine over it that may be killed at any move."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msearchd.domain.space import SpaceName
from msearchd.orchestrator.model_plan import Act, Move, Policy, SpaceState, plan_change
from msearchd.store.catalog.space_book import Phase

OLD, NEW, OLDER = SpaceName("old"), SpaceName("new"), SpaceName("older")
HOUR_MS = 3_600_000
ASKING = Policy(auto_samples=100, keep_ms=HOUR_MS)


def space(name, phase, **more):
    return SpaceState(**{"name": name, "phase": phase, "is_askable": True, "is_filling": False, **more})


def plan(*states, wanted=NEW, policy=ASKING, now_ms=0):
    return plan_change(states, wanted=wanted, policy=policy, now_ms=now_ms)


SERVING = space(OLD, Phase.SERVING, is_filling=True)


def test_much_work_waits_for_a_yes():
    assert plan(SERVING, space(NEW, Phase.WAITING, owed=101)) == ()


def test_little_work_begins_unasked():
    assert plan(SERVING, space(NEW, Phase.WAITING, owed=100)) == (Move(Act.BUILD, NEW),)


def test_a_bound_of_minus_one_begins_any_work():
    never_asks = Policy(auto_samples=-1, keep_ms=HOUR_MS)
    assert plan(SERVING, space(NEW, Phase.WAITING, owed=10**9), policy=never_asks) == (Move(Act.BUILD, NEW),)


def test_the_old_one_answers_until_the_new_one_holds_as_much():
    building = space(NEW, Phase.BUILDING, is_filling=True)
    assert plan(SERVING, building) == ()
    assert plan(SERVING, replace(building, is_covering=True)) == (Move(Act.SERVE, NEW),)


def test_a_space_that_cannot_be_asked_any_more_gives_way_at_once():
    mute = replace(SERVING, is_askable=False)
    assert plan(mute, space(NEW, Phase.WAITING, owed=10**6)) == (Move(Act.SERVE, NEW),)
    assert plan(space(NEW, Phase.SERVING, owed=10**6)) == ()  # and its work waits for a yes
    assert plan(space(NEW, Phase.SERVING, owed=5)) == (Move(Act.FILL, NEW),)


def test_what_somebody_declined_never_begins_again_by_itself():
    assert plan(SERVING, space(NEW, Phase.DECLINED, owed=0, is_covering=True)) == ()


def test_a_kept_space_that_the_settings_ask_for_again_is_brought_up_to_date_first():
    assert plan(SERVING, space(NEW, Phase.KEPT, owed=3)) == (Move(Act.WAIT, NEW),)


def test_a_replaced_space_goes_when_its_time_is_over_and_not_before():
    kept = space(OLDER, Phase.KEPT, since_ms=1000)
    assert plan(space(NEW, Phase.SERVING, is_filling=True), kept, now_ms=1000 + HOUR_MS - 1) == ()
    assert plan(space(NEW, Phase.SERVING, is_filling=True), kept, now_ms=1000 + HOUR_MS) == (Move(Act.DROP, OLDER),)


def test_what_the_settings_ask_for_no_more_is_kept_and_not_filled():
    assert plan(SERVING, space(NEW, Phase.BUILDING), wanted=OLD) == (Move(Act.KEEP, NEW),)


def test_missing_weights_change_nothing():
    assert plan(SERVING, space(NEW, Phase.BUILDING), wanted=None) == ()


class Changes(RuleBasedStateMachine):
    """Settings change, contents come, work is done, moves are made one by one, and any of them may be the last before a kill."""

    @initialize()
    def begin(self):
        self.held = {OLD: set(range(5))}  # contents by space, as the store has them
        self.known = set(range(5))
        self.states = [replace(SERVING, is_filling=True)]
        self.wanted, self.now_ms, self.said = OLD, 0, set()
        self.asked_for = set()  # names whose work somebody allowed

    def _state(self, name):
        return next((one for one in self.states if one.name == name), None)

    def _set(self, name, **more):
        self.states = [replace(one, **more) if one.name == name else one for one in self.states]

    @property
    def serving(self):
        return next((one for one in self.states if one.phase is Phase.SERVING), None)

    @rule(name=st.sampled_from([OLD, NEW, OLDER]))
    def the_settings_name_a_model(self, name):
        self.wanted = name
        if self._state(name) is None:
            self.held[name] = set()
            self.states.append(space(name, Phase.WAITING))

    @rule(number=st.integers(0, 300))
    def contents_come(self, number):
        self.known |= set(range(len(self.known), len(self.known) + number))

    @rule(part=st.integers(1, 400))
    def work_is_done(self, part):
        for one in self.states:
            if one.phase in {Phase.SERVING, Phase.BUILDING} and one.is_filling:
                self.held[one.name] |= set(sorted(self.known - self.held[one.name])[:part])

    @rule(hours=st.integers(0, 3))
    def time_passes(self, hours):
        self.now_ms += hours * HOUR_MS

    @precondition(lambda self: self._state(self.wanted).phase in {Phase.WAITING, Phase.DECLINED})
    @rule()
    def somebody_says_yes(self):
        self.asked_for.add(self.wanted)
        self._set(self.wanted, phase=Phase.BUILDING, is_filling=True)

    @precondition(lambda self: self._state(self.wanted).phase in {Phase.WAITING, Phase.BUILDING})
    @rule()
    def somebody_says_no(self):
        self.asked_for.discard(self.wanted)
        self._set(self.wanted, phase=Phase.DECLINED, is_filling=False)

    @rule(name=st.sampled_from([OLD, NEW, OLDER]), is_askable=st.booleans())
    def weights_go_or_come(self, name, is_askable):
        self._set(name, is_askable=is_askable)

    @rule(moves=st.integers(1, 6))
    def the_daemon_makes_moves_and_is_killed(self, moves):
        for _ in range(moves):
            shown = self.held[self.serving.name] if self.serving else set()
            seen = [
                replace(one, owed=len(self.known - self.held[one.name]), is_covering=self.held[one.name] >= shown)
                for one in self.states
            ]
            planned = plan_change(seen, wanted=self.wanted, policy=ASKING, now_ms=self.now_ms)
            if not planned:
                return
            self._make(planned[0])

    def _make(self, move):
        one = self._state(move.space)
        match move.act:
            case Act.SERVE:
                before = self.serving
                if before is not None:
                    assert not before.is_askable or self.held[move.space] >= self.held[before.name], "a hit was lost"
                    self._set(before.name, phase=Phase.KEPT, is_filling=False, since_ms=self.now_ms)
                self._set(move.space, phase=Phase.SERVING)
            case Act.BUILD | Act.FILL:
                little = len(self.known - self.held[move.space]) <= ASKING.auto_samples
                assert little or move.space in self.asked_for, "hours of work began unasked"
                phase = Phase.BUILDING if move.act is Act.BUILD else one.phase
                self._set(move.space, phase=phase, is_filling=True)
            case Act.WAIT:
                self._set(move.space, phase=Phase.WAITING, is_filling=False)
            case Act.KEEP:
                self._set(move.space, phase=Phase.KEPT, is_filling=False, since_ms=self.now_ms)
            case Act.DROP:
                assert one.phase is Phase.KEPT
                assert self.now_ms - one.since_ms >= ASKING.keep_ms
                self.states.remove(one)
                self.asked_for.discard(move.space)
                if move.space == self.wanted:
                    self.the_settings_name_a_model(move.space)

    @invariant()
    def exactly_one_space_answers(self):
        assert sum(one.phase is Phase.SERVING for one in getattr(self, "states", [SERVING])) == 1

    @invariant()
    def the_plan_comes_to_rest(self):
        if not hasattr(self, "states"):
            return
        kept = self.states, self.asked_for, {name: set(held) for name, held in self.held.items()}
        for _ in range(20):
            before = self.states
            self.the_daemon_makes_moves_and_is_killed(1)
            if self.states == before:
                break
        else:
            raise AssertionError("moves go round in circles")
        self.states, self.asked_for, self.held = kept


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
