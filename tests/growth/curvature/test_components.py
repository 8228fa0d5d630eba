from nni_s3d.growth.curvature.components import connected_components


def test_what_hangs_together_has_one_number():
    components = connected_components(7, [(0, 3), (3, 5), (1, 1), (6, 2), (2, 6)])
    assert len(components) == 7
    assert components[0] == components[3] == components[5]
    assert components[2] == components[6]
    assert len({components[0], components[1], components[2], components[4]}) == 4


def test_without_edges_every_vertex_is_alone():
    assert connected_components(3, []) == [0, 1, 2]
