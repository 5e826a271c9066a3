"""What is done around infinity-emb, without it."""

import asyncio

import pytest

from msearchd.domain.sample import Picture, Sound
from msearchd.errors import BadAsset
from msearchd.inference.worker.engines import decoded
from msearchd.inference.worker.engines.base import names_torchvision
from msearchd.inference.worker.engines.infinity import InfinityEngine, least_limit, without_padding
from msearchd.inference.worker.engines.infinity_shims import Failed, harden

np = pytest.importorskip("numpy")


class Replica:
    def encode_pre(self, items):
        return items

    def encode_core(self, features):
        raise MemoryError("full")

    def encode_post(self, out):
        return out


def test_an_error_of_a_step_becomes_the_result_of_each_of_its_items():
    replica = Replica()
    harden([replica])
    results = replica.encode_post(replica.encode_core(replica.encode_pre(["a", "b"])))
    assert [type(result.error) for result in results] == [MemoryError, MemoryError]
    assert sorted(results, reverse=True)  # the library sorts scores


def test_padding_rows_of_multi_vectors_are_dropped_and_others_kept():
    rows = np.array([[0.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 0.0]])
    assert without_padding(rows).tolist() == [[0.6, 0.8], [0.0, 1.0]]


def test_scores_come_back_in_the_order_of_the_pairs_whatever_the_query():
    class Answer:
        def __init__(self, index, relevance_score):
            self.index, self.relevance_score = index, relevance_score

    class Ranker:
        async def rerank(self, *, query, docs, raw_scores):
            assert raw_scores
            found = [Answer(index, len(query) * 10 + len(text)) for index, text in enumerate(docs)]
            return sorted(found, key=lambda answer: -answer.relevance_score), 0

    engine = InfinityEngine()
    engine._engine = Ranker()
    pairs = [("a", "x"), ("bb", "yyy"), ("a", "zzzz"), ("bb", "q")]
    assert asyncio.run(engine._scores(pairs)) == [[11], [23], [14], [21]]
    engine._loop.close()


def test_the_least_limit_that_somebody_states_holds():
    assert least_limit(10**30, None, asked=0) == 512
    assert least_limit(77, None, asked=0) == 77
    assert least_limit(77, None, asked=40) == 40


def test_a_strip_is_cut_to_its_middle_and_a_speck_enlarged():
    assert decoded.as_image(Picture(1, 4000, bytes(12_000))).size == (16, 320)
    assert decoded.as_image(Picture(3, 2, bytes(18))).size == (24, 16)
    assert decoded.as_image(Picture(640, 480, bytes(640 * 480 * 3))).size == (640, 480)


def test_sounds_are_taken_up_to_the_last_sample_that_fits():
    assert len(decoded.as_samples(Sound(100, bytes(4000)), rate=100, longest_s=10.0)) == 1000
    with pytest.raises(BadAsset, match="1001 samples"):
        decoded.as_samples(Sound(100, bytes(4004)), rate=100, longest_s=10.0)


def test_torchvision_is_found_as_the_cause_of_the_cause():
    error = ImportError("Could not import module 'PreTrainedModel'")
    error.__cause__ = RuntimeError("operator torchvision::nms does not exist")
    assert names_torchvision(error)
    assert not names_torchvision(ImportError("no module named x"))


def test_a_failed_score_keeps_its_error():
    assert isinstance(Failed.of(ValueError("x")).error, ValueError)
