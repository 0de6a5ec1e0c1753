"""Folding batch norms into convolutions; needs PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.model import Net, cosines, folded, layer_records, logits_from_arrays  # noqa: E402
from training.settings import Shape  # noqa: E402


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net(Shape(2, 5, 0.3, first_layer_init_scale=0.1, other_layers_init_scale=0.2), 3)
    for norm in net.norms:
        torch.nn.init.uniform_(norm.weight, -1, 1)
        torch.nn.init.normal_(norm.bias)
        torch.nn.init.normal_(norm.running_mean)
        torch.nn.init.uniform_(norm.running_var, 0.01, 2)
    return net.eval()


def test_folded_arrays_give_the_logits_of_the_trained_network(net):
    x = torch.rand(4, 1, 13, 9)
    with torch.inference_mode():
        wanted, found = net(x), logits_from_arrays(folded(net), x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_folded_arrays_are_those_the_layer_records_ask_for(net):
    with_arrays = [r["name"] for r in layer_records(2) if r["type"] in ("conv2d", "linear")]
    assert {name.partition(".")[0] for name in folded(net)} == set(with_arrays)


def test_cosines_are_one_before_training_and_less_after_a_turn(net):
    initial = {name: value.clone() for name, value in net.state_dict().items()}
    assert cosines(net, initial) == pytest.approx([1.0, 1.0])
    with torch.no_grad():
        net.convs[0].weight.neg_()
    assert cosines(net, initial) == pytest.approx([-1.0, 1.0])
